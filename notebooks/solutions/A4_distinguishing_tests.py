# %% [markdown]
# ## Exercises
#
# Replace each `...`, run the cell, then the check below it. They need only the next cell of this notebook; a solution
# is folded under each check.

# %%
import math  # noqa: F811
import random
from collections import Counter

from acelib.course import check

# %% [markdown]
# ### A4.1 An input that tells apart (10 minutes, medium)
#
# All programs pass all tests that you have. `outputs[i][k]` is what program i returns on input k. Which input would be
# worth a test? The one on which the most *pairs* of programs differ.


# %%
def telling_input(outputs: list[list[str]]) -> int:
    """The place of the input that tells the most pairs of programs apart; the first one of equals."""
    ### BEGIN SOLUTION
    columns = list(zip(*outputs))
    alike = [sum(a == b for a in column for b in column) for column in columns]
    return alike.index(min(alike))
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(telling_input) as answer:
    for name, columns, expected in [
        ("the second input splits 2 to 2, the first 3 to 1", ["aaab", "aabb"], 1),
        ("the first splits into four, the second 2 to 2", ["abcd", "aabb"], 0),
        ("three values (5, 1, 1) split fewer pairs than two (4, 3)", ["aaaaabc", "aaaabbb"], 1),
        ("nothing differs: the first", ["aaa", "bbb"], 0),
    ]:
        place = answer([list(row) for row in zip(*columns)])
        assert place == expected, f"{name}; your input is number {place}, counted from 0"
    print("many different values are not enough: what counts is how many pairs they split")

# %% [markdown]
# ### A4.2 Whom to believe (10 minutes, medium)
#
# Is the result "yes" or "no"? Before anybody votes both are equally likely. The voters are independent, and voter i is
# right with probability `right[i]`. Return the log-odds $\log\frac{P(\text{yes})}{P(\text{no})}$ after their votes:
# above 0 for yes, below 0 for no, 0 for undecided.


# %%
def log_odds_of_yes(votes: list[bool], right: list[float]) -> float:
    """The log-odds of "yes"; votes: True for yes; right: each in (0, 1)."""
    ### BEGIN SOLUTION
    return sum((1 if yes else -1) * math.log(p / (1 - p)) for yes, p in zip(votes, right, strict=True))
    ### END SOLUTION


# %% tags=["exercise-check"]
with check(log_odds_of_yes) as answer:
    for name, votes, right in [
        ("one voter, right in 8 of 10, says yes", [True], [0.8]),
        (
            "three that are right in 6 of 10 say yes, one that is right in 9 of 10 says no",
            [True] * 3 + [False],
            [0.6] * 3 + [0.9],
        ),
        ("a coin says yes", [True], [0.5]),
        ("a voter that is mostly wrong says yes", [True], [0.2]),
    ]:
        yes = math.prod(p if vote else 1 - p for vote, p in zip(votes, right))  # Bayes' rule, the long way
        no = math.prod(1 - p if vote else p for vote, p in zip(votes, right))
        mine = answer(votes, right)
        assert abs(mine - math.log(yes / no)) < 1e-9, (
            f"{name}: by Bayes' rule 'yes' has the probability {yes / (yes + no):.0%}, which is the log-odds "
            f"{math.log(yes / no):+.2f}; yours are {mine:+.2f}"
        )
    print("one good voter outweighs three middling ones, and whoever is mostly wrong votes against himself")

# %% [markdown]
# ### A4.3 To make a test, or not (project, 30 minutes)
#
# Some questions are hard, and then most samples share one mistake; the teacher makes the same one at times, and others
# of its own. On one input you see what 16 samples return and what the teacher says in eight replies. Return the value
# that the new test should ask for, or -1 to make no test. A right test earns a point. A wrong one costs two, for no
# right program is paid any more. Earn 0.15 points per question more than the better one of two rules that always
# answer: the samples' commonest value, and the teacher's.


# %%
def question(rng: random.Random):
    """What samples return and what the teacher says, and what you do not see: the right value."""
    right, misread, other, *rest = rng.sample(range(100), 6)
    hard = rng.random() < 0.3
    outputs = [
        right if rng.random() < (0.25 if hard else 0.75) else misread if rng.random() < 0.9 else rng.choice(rest)
        for _ in range(16)
    ]
    said = right if rng.random() < 0.65 else rng.choice([misread, other])  # how the teacher reads the question
    votes = [said if rng.random() < 0.7 else rng.choice(rest) for _ in range(8)]
    return outputs, votes, right


# %%
def new_test(outputs: list[int], votes: list[int]) -> int:
    """The value that a new test should ask for; -1 for no test."""
    ### BEGIN SOLUTION
    # Two sides with different mistakes: a value on which both agree is mostly right.
    by_samples, by_teacher = (Counter(side).most_common(1)[0][0] for side in (outputs, votes))
    return by_samples if by_samples == by_teacher else -1
    ### END SOLUTION


# %% tags=["exercise-check"]
def earned(choose, questions=1000):
    """Points per question, and the share of the questions with a new test."""
    rng, points, made = random.Random(3), 0, 0
    for outputs, votes, right in (question(rng) for _ in range(questions)):
        result = choose(outputs, votes)
        if result >= 0:
            made, points = made + 1, points + (1 if result == right else -2)
    return points / questions, made / questions


with check(new_test) as answer:
    mine, made = earned(answer)
    by_samples, _ = earned(lambda outputs, votes: Counter(outputs).most_common(1)[0][0])
    by_teacher, _ = earned(lambda outputs, votes: Counter(votes).most_common(1)[0][0])
    print(f"points per question: samples {by_samples:+.2f}, teacher {by_teacher:+.2f}, yours {mine:+.2f}")
    print(f"you made a test for {made:.0%} of the questions")
    best = max(by_samples, by_teacher)
    assert mine > best, "one side alone does as well; what do you know when the two sides agree?"
    assert mine > best + 0.15, "that is not 0.15 points more than the better side; which tests are better not made?"
