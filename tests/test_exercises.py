"""Solutions pass their checks, open exercises say so, mistakes are named, and the notebooks show just these."""

import re
from importlib.util import module_from_spec, spec_from_file_location

import nbformat
import pytest

from acelib.core import ROOT
from acelib.course import check


def load(path):
    """A module from its file; what it prints is what a reader sees."""
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


BUILD = load(ROOT / "notebooks" / "solutions" / "build.py")
SOURCES = {path.stem[:2]: path for path in BUILD.sources()}
every_notebook = pytest.mark.parametrize("path", SOURCES.values(), ids=SOURCES)


def verdicts(capsys):
    return re.findall(r"^(Right|Not right yet|Not solved yet): (.*)", capsys.readouterr().out, re.M)


def test_every_notebook_has_exercises():
    assert [path.stem for path in SOURCES.values()] == sorted(path.stem for path in BUILD.NOTEBOOKS.glob("*.ipynb"))


@every_notebook
def test_a_notebook_shows_what_its_solutions_make(path):
    notebook = nbformat.read(BUILD.NOTEBOOKS / f"{path.stem}.ipynb", as_version=4)
    shown = [cell for cell in notebook.cells if BUILD.TAG in cell.metadata.get("tags", [])]
    assert notebook.cells[-1].id == "next" and notebook.cells[-1 - len(shown) : -1] == shown
    made = BUILD.exercise_cells(path)
    assert [(one.id, one.source, one.metadata) for one in shown] == [(one.id, one.source, one.metadata) for one in made]


@every_notebook
def test_each_exercise_has_minutes_level_starter_check_and_solution(path):
    cells = BUILD.exercise_cells(path)
    heads = [cell.source.splitlines()[0] for cell in cells if cell.source.startswith("### ")]
    number = re.escape(path.stem[:2].lstrip("0") or "0")
    form = rf"### {number}\.\d .+ \((\d+ minutes, (easy|medium)|project, \d+ minutes)\)"
    assert 3 <= len(heads) <= 6 and all(re.fullmatch(form, head) for head in heads), heads
    text = "\n".join(cell.source for cell in cells)
    checks = [cell for cell in cells if BUILD.CHECK in cell.metadata.tags]
    assert len(heads) == len(checks) == text.count("# Your code here") == text.count("<summary>Solution</summary>")
    assert "SOLUTION" not in text
    assert all(len(cell.source.splitlines()) <= 30 for cell in cells if cell.cell_type == "code")


@every_notebook
def test_the_solutions_are_right(path, capsys):
    load(path)
    found = verdicts(capsys)
    assert found and {word for word, _ in found} == {"Right"}, found


@every_notebook
def test_an_open_exercise_says_so_and_raises_nothing(path, capsys, tmp_path):
    open_one = tmp_path / path.name
    open_one.write_text(BUILD.unsolved(path.read_text()))
    load(open_one)
    found = verdicts(capsys)
    assert found and {word for word, _ in found} == {"Not solved yet"}, found
    assert all(re.search(r"^`\w+` returns nothing\. Write it in the cell above", said) for _, said in found)


@pytest.mark.parametrize(
    ("notebook", "right", "wrong", "said"),
    [
        ("00", "100 * (after / before - 1)", "after / before", "44.4 to 52.3 is +17.8 in per cent"),
        ("00", "{questions: 400}", "{question: 400}", "ProfileError: "),
        ("00", '"assert f([5, 5, 5, 0, -1]) == [0, -1]",', "", "drops pairs, not triples passes all your tests"),
        ("00", '["04", "05", "06", "07"]', '["04", "05", "07"]', "06 makes something again"),
        ("01", "comparison.comparators[0])", "comparison.left)", "ValueError: malformed node"),
        ("01", "if isinstance(func, ast.Name)}", "if isinstance(func, ast.Name)} | {'lower'}", "one plain call"),
        ("01", "[: (len(pieces) - 1) // 2]", "", "holds the complete tests []"),
        (
            "01",
            "ast.unparse(side.left) for side in sides",
            "test.split('==')[0] for test in tests",
            "f(1) cannot be 1 and 2",
        ),
        (
            "02",
            "sum(kept), both / sum(right)",
            "sum(kept), both / sum(kept)",
            "4 tests are right, 2 of them kept: recall 0.50, yours 0.67",
        ),
        ("02", "0.5 if g == b else 0.0", "0.0", "a tie counts one half"),
        ("02", "if any(verdicts)", "if all(verdicts)", "one program that passes a test saves it"),
        ("02", "{x for x in xs if x > 2}", "[x for x in xs if x > 2]", "it passes the hidden tests, too"),
        ("02", ">= 0.25", ">= 0", "keeping all tests does as well"),
        ("03", "math.ceil(p * (1 - p)", "math.ceil(p", "more than it takes"),
        ("03", "fmean(any(pick)", "fmean(all(pick)", "5 of the 6 picks of 2 hold a right one"),
        ("03", "good - bad > 0.4", "good - bad >= 0.4", "a gap of exactly 0.4 is too small"),
        ("03", " and bad > 0", "", "a program that passes nothing is in no pair"),
        ("03", "in set(rewards))", "in (0, 1))", "of the 6 ways to draw 2 of"),
        ("03", "p * (1 - p) / error**2", "p * (1 - p) / error", "p (1 - p) / n is its square"),
        ("03", "abs(right[i] - 0.5)", "right[i]", "no better than the hard quarter"),
        ("03", "abs(right[i] - 0.5)", "i", "of your questions were never solved"),
        ("03", "rate == 1.0 for rate in question", "rate for rate in question", "of your questions were never solved"),
        ("04", "math.exp(b - a)", "math.exp(a - b)", "the probability that the other one wins"),
        ("04", "return total / (n * (n - 1))", "return total / len(pairs)", "(divide by n (n - 1))"),
        ("04", "max(0.0, -d) + math.log1p(math.exp(-abs(d)))", "math.log1p(math.exp(-d))", "OverflowError: "),
        ("04", "gradient[chosen] += push", "gradient[chosen] -= push", "with the wrong sign"),
        (
            "04",
            "(scores[rejected] - scores[chosen])) - 1) / (n * (n - 1))",
            "(scores[rejected] - scores[chosen])) - 1)",
            "not divided by n (n - 1)",
        ),
        ("04", "number / 2**64 < share", "len(question_id) % 10 < 10 * share", "are held out, not about 10%"),
        ("04", "number / 2**64 < share", "hash(question_id) % 1000 < 1000 * share", "after another start of Python"),
        (
            "04",
            "number / 2**64 < share",
            "int(question_id.split('/')[1]) < 2000 * share",
            "pocket/0 to pocket/999 20.0% are held out",
        ),
        ("04", "[best] * 50", "[best]", "the model still likes a right program better"),
        ("04", '"ranked right": "same"}', '"ranked right": "lower"}', "is 'same': swaps at random cancel"),
        ("04", '{"loss": "higher"', '{"loss": "same"', "is 'higher': a pair that was turned round"),
        ("04", '"size of a gap": "lower"', '"size of a gap": "higher"', "must not be too sure"),
        ("04", '"size of a gap": "lower", ', "", "predict these: loss, size of a gap, ranked right"),
        ("05", "if score == max(scores)", "", "the first has the highest score, and is right"),
        ("05", "samples - 1 - rank", "samples - rank", "rank 0 is the pick in 3 of 6 ways"),
        ("09", "-down / (up - down)", "up / (up - down)", "gains +0.08 and -0.20: a proxy that solves 29% gains"),
        ("08", "(n + known / chosen)", "(n + known)", "500 of them chosen, 400 mixed groups of 8: 30.0"),
        ("09", "any(kept) and ", "", "none kept: [False, False, False, False] are paid; yours pays [True"),
        (
            "A4",
            "sum(a == b for a in column for b in column)",
            "-len(set(column))",
            "the second input splits 2 to 2, the first 3 to 1",
        ),
        (
            "09",
            '"by a right one": ("same"',
            '"by a right one": ("higher"',
            "it took every reward, and lowered all rates alike",
        ),
        (
            "09",
            '"and all alike": ("lower", "same")',
            '"and all alike": ("lower", "higher")',
            "all programs look the same",
        ),
        ("A6", "return p**n, p", "return p**n, p**n", "that misreads 75% of the questions have no wrong test"),
        ("A6", '"samples": "same"', '"samples": "higher"', "is 'same': the right set grows, and so does the wrong"),
        (
            "A6",
            "worth = {tests: sum(tests) * sizes[tests] ** 0.25",
            "worth = {tests: sizes[tests]",
            "when do the many share a mistake?",
        ),
        (
            "10",
            "fmean(fmean(after) - fmean(before) for before, after in policies)",
            "(sum(sum(a) - sum(b) for b, a in policies)) / sum(len(a) for _, a in policies)",
            "-0.05 on average; yours is -0.140",
        ),
        ("10", "4.30 * stdev(values)", "1.96 * stdev(values)", "the interval is [-41, +11]; yours is ["),
        ("10", "max(0, rollout - 5)", "0", "the run stops after rollout 8; yours says 10"),
        ("10", "if one is not world", "", "the other two choose, the third gains -0.1; yours is +0.4"),
        ("A3", " * sum(row)", "", "program 1 passes 2 tests, and 2 programs pass just these"),
        ("A3", "8 * rate + min(score, 1.5)", "score", "what does it fall for?"),
        ("A3", "if votes[texts[i]] == max(votes.values())", "if texts[i] == votes.most_common(1)[0][0]", "2 drawn:"),
        ("A3", '"everybody": {"dual agreement"}', '"everybody": set()', "everybody"),
        ("A5", "share - before[question] for", "share for", "these are the shares themselves"),
        ("A5", "share - before[question] for", "share - fmean(before.values()) for", "you took off the mean of all"),
        ("A5", "((n + 2) * (n + 3))", "(n + 2) ** 2", "take the mean of 2 p (1 - p)"),
        (
            "A5",
            "2 * (c + 1) * (n - c + 1) / ((n + 2) * (n + 3))",
            "2 * c * (n - c) / n**2 if n else 0.5",
            "the next one may still succeed",
        ),
        ("A5", '{"hopeless": "fewer"', '{"hopeless": "more"', "the lower half by pass rate is full of"),
        ("A5", '"alike": "as many"', '"alike": "more"', "the questions differ by chance alone"),
        ("A5", '"easy": "more"}', '"easy": "fewer"}', "the hardest of easy questions"),
        ("A4", "(1 if yes else -1) * math.log(p / (1 - p))", "(p if yes else p - 1)", "'yes' has the probability 80%"),
        ("A4", "by_samples if by_samples == by_teacher else -1", "by_samples", "one side alone does as well"),
        ("05", "return max(ns, key", "return min(ns, key", "is right on"),
        ("05", "return max(ns, key", "return 16 or max(ns, key", "one sample is best"),
        ("06", "rewards[t:]", "rewards[:t]", "its own -0.50 and +1.50 from what follows; yours is +0.00"),
        ("06", "unbiased=False", "unbiased=True", "its advantage +1.00; divide by N, not by N - 1"),
        ("06", "token_rewards = -beta", "token_rewards = beta", "the penalty has the wrong sign"),
        ("06", ".flip(1).cumsum(1).flip(1)", "", "your advantage of token 1 of reply 1 is"),
        ("06", ".clamp(min=1e-8)", "", "some are nan"),
        ("06", "(mask.cumsum(dim=1) * mask).argmax(dim=1)", "mask.sum(dim=1).long() - 1", "where is its last token?"),
        (
            "06",
            "objective = torch.minimum(",
            "objective = torch.maximum(",
            "ratio 1.5 and advantage +1: the loss is -1.10, yours is -1.25",
        ),
        ("06", "return -(objective", "return (objective", "turn the sign"),
        ("06", "(objective * mask).sum() / mask.sum()", "objective.mean()", "the third token is padding"),
        ("06", "groups.std(dim=1, keepdim=True)", "groups.std()", "2 per question: reply 1 has the advantage +0.71"),
        (
            "06",
            "groups = rewards.view(-1, n)",
            "groups = rewards.view(1, -1)",
            "of all replies instead of its question's",
        ),
        ("06", " if value == 1 else value", "", "wrong programs earn 0"),
        ("06", "max(0.0, 1 - length / most)", "(1 - length / most)", "there is no bonus and no fine"),
        ("06", '{"bonus": "same"', '{"bonus": "farther"', "'farther', is 'same': what every reply gets alike"),
        ("06", '"beta": "same", ', '"beta": "nowhere", ', "is 'same': the policy is still the reference"),
        ("06", '"equal": "nowhere"', '"equal": "farther"', "is 'nowhere': all returns are their mean"),
        ("06", '"learning_rate": "farther"}', '"learning_rate": "same"}', "is 'farther': the advantages are the same"),
        ("07", "* 0.05 / 2", "* 0.05", "half of the misses lie below 0"),
        ("07", " + 1\n    ### END", "\n    ### END", "the interval still reaches"),
        (
            "07",
            "difference[picks].mean(axis=1)",
            "np.array(after)[picks].mean(axis=1) - before[picks[::-1]].mean(axis=1)",
            "as wide as if each",
        ),
        ("07", ">= seen - 1e-12", "> seen", "of 8 patterns only the one that was seen"),
        ("07", "gain and reproduced is False", "reproduced is False", "it is no gain over that policy"),
        (
            "08",
            "(sum(rewards) - reward) / (len(rewards) - 1)",
            "sum(rewards) / len(rewards)",
            "the others [0.0], so its",
        ),
        ("08", "0.5 * (1 + math.tanh(x / 2))", "1 / (1 + math.exp(-x))", "OverflowError: math range error"),
        ("08", "outcomes[place][8:]", "outcomes[place][:8]", "which outcomes does the choice not know?"),
        ("08", "if len(set(rewards)) > 1", "if rewards", "the mixed ones are kept"),
        ("08", '{"plus": set(), ', '{"plus": {"rloo"}, ', "plus, rloo: before [1.0, -0.33"),
        ("08", '{"rloo", "dr_grpo"}', '{"rloo"}', "after [7.5, -2.5, -2.5, -2.5]; only a division"),
        ("08", '{"rloo", "dr_grpo"}', '{"rloo", "Dr. GRPO"}', "the names are reinforce++, reinforce++-baseline, rloo"),
        ("08", '"reinforce++", "reinforce++-baseline"}', '"reinforce++"}', "other, reinforce++-baseline: before ["),
        ("A1", "{len(calls) - 1}", "{len(calls)}", "ANSWER0 == 9 is kept; yours keeps ANSWER1 == 9"),
        (  # what the pick gains is taken from all others alike
            "A2",
            "- math.exp(one) / total for",
            "- [(1 - (p := math.exp(theta[pick]) / total)) / (len(theta) - 1), p][number == pick] for",
            "loses its probability",
        ),
        ("A2", " - beta * math.log(old[pick] / reference[pick])", "", "is the penalty inside the reward"),
        ("A2", "for _ in range(8):", "for _ in range(1):", "of what can be gained: what else does a rollout teach?"),
        (
            "A1",
            "type(value) in (int, float",
            "isinstance(value, int) or type(value) in (int, float",
            "equals whatever it likes",
        ),
        ("A1", "__import__('o' + 's')", "__import__('os.path')", "the list catches 'os.'"),
        ("A1", "random.Random(seed)", "random.Random(seed % 10)", "has learnt the tests by heart passes"),
    ],
)
def test_a_mistake_is_named(notebook, right, wrong, said, capsys, tmp_path):
    source = SOURCES[notebook].read_text()
    assert source.count(right) == 1, f"{right!r} stands {source.count(right)} times in {SOURCES[notebook].name}"
    mistaken = tmp_path / "mistaken.py"
    mistaken.write_text(source.replace(right, wrong))
    load(mistaken)
    (found,) = [text for word, text in verdicts(capsys) if word == "Not right yet"]
    assert said in found


def test_an_error_in_an_answer_is_shown_and_stops_nothing(capsys):
    def answer(values):
        return sum(values) / len(values)

    with check(answer) as tried:
        assert tried([]) == 0
    ((word, said),) = verdicts(capsys)
    assert word == "Not right yet"
    assert said == "ZeroDivisionError: division by zero (in `answer`: return sum(values) / len(values))"


def test_outputs_of_the_same_code_stay(tmp_path):
    path = SOURCES["03"]
    notebook = nbformat.read(BUILD.NOTEBOOKS / f"{path.stem}.ipynb", as_version=4)
    (cell, *_) = [one for one in notebook.cells if BUILD.CHECK in one.metadata.get("tags", [])]
    cell.outputs = [nbformat.v4.new_output("stream", text="Not solved yet")]
    number = len(notebook.cells)
    again = BUILD.with_exercises(notebook, BUILD.exercise_cells(path))
    assert len(again.cells) == number
    assert [one.outputs for one in again.cells if one.id == cell.id] == [cell.outputs]
