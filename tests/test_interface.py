"""What a question must say so that its tests can be passed, and the sentence that says it."""

import pytest

from acelib.interface import calls_of, fits, named_functions, signatures, state_interface
from acelib.synthesis import problems_from_replies

ONE, TWO = ["assert f([1]) == 1"], ["assert f([1], 2) == 1", "assert f([], -3) == 0"]


@pytest.mark.parametrize(
    ("question", "name", "tests"),
    [
        ("Write `f(xs, n)`.", "f", TWO),
        ("Given\n\n    def f(xs: list[int], n: int = 3) -> int:\n\nadd up.", "f", TWO),
        ("Implement f(list, int) so that it adds up.", "f", TWO),
        ("The recurrence f(1) = 1 holds for `f(a, b)`.", "f", TWO),
        ("Write f.", "f", ONE),
        ("Write a function named f.", "f", ONE),
        ("Write a function sum_up that adds up.", "sum_up", ["assert sum_up([1]) == 1"]),
        ("Define `now`.", "now", ["assert now() == 1"]),
        ("Schreibe `größe(text)`.", "größe", ["assert größe('a') == 1"]),
        ("\ufb01nd_it takes a text.", "find_it", ["assert find_it('a') == 1"]),
        ("Write `f(x, *, key)`.", "f", ["assert f(1, key=2) == 3"]),
        ("Solve it as `f`.", "f", ["def check(candidate):\n    assert candidate(1, 2) == 3"]),
    ],
)
def test_a_question_that_names_all_is_left_alone(question, name, tests):
    assert state_interface(question, name, tests) == question


@pytest.mark.parametrize(
    ("question", "name", "tests", "sentence"),
    [
        ("Add up", "f", ONE, ". function: `f`, with 1 argument: a list."),
        ("Count the letters.", "count", ["assert count('a') == 1"], " function: `count`, with 1 argument: a string."),
        ("Write `f`.", "f", TWO, " function: `f`, with 2 arguments: a list and an integer."),
        ("Write `f()`.", "f", TWO, " function: `f`, with 2 arguments: a list and an integer."),
        ("Write `f(xs)`.", "f", TWO, " function: `f`, with 2 arguments: a list and an integer."),
        (
            "Reverse the word(s).",
            "word",
            ["assert word('a', 1) == 1"],
            " function: `word`, with 2 arguments: a string and an integer.",
        ),
        (
            "Go on.",
            "f",
            ["assert f(1) == 1", "assert f(None, n=2.5) == 1"],
            " function: `f`, with 2 arguments: an integer or None and a float `n` (optional).",
        ),
        ("What time is it?", "now", ["assert now() == 1"], " function: `now`, with no arguments."),
        (
            "Messen.",
            "größe",
            ["assert größe(b'', {}, {1}, (), True) == 1"],
            " function: `größe`, with 5 arguments: a bytes object, a dictionary, a set, a tuple and a boolean.",
        ),
        ("Spread.", "f", ["assert f(*[1, 2]) == 1", "assert f(**{'a': 1}) == 1"], " function: `f`."),
        ("Nest.", "f", ["assert f(x + 1) == f(g(2))"], " function: `f`, with 1 argument: a value."),
        (
            "Stack.",
            "Stack",
            ["assert Stack().push(1) == 1", "assert Stack([2]).pop() == 2"],
            " The class to write is `Stack`, with `pop` and `push` among its methods.",
        ),
        ("First:\n```\n1\n```", "f", ONE, "\n\nfunction: `f`, with 1 argument: a list."),
        ("Deep.", "f", ["assert f(" + "[" * 300 + "]" * 300 + ") == 1"], " function: `f`."),
    ],
)
def test_what_is_left_open_is_said_once(question, name, tests, sentence):
    stated = state_interface(question, name, tests)
    assert stated == question + sentence.replace("function: ", "The function to write is ")
    assert state_interface(stated, name, tests[:1]) == stated


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("def f(xs, n=2):\n    return 1", "`f(xs, n=2)`."),
        ("import m\ndef f(xs: list[m.X], n: int = m.N) -> int:\n    def f(a): pass", "`f(xs, n=...)`."),
        ("def f(xs, /, n, *rest, key=None, **more): pass", "`f(xs, /, n, *rest, key=None, **more)`."),
        ("def f(xs, *, n): pass", "`f`, with 2 arguments: a list and an integer."),  # the tests give it by place
        ("def f(xs): pass", "`f`, with 2 arguments: a list and an integer."),
        ("def g(xs, n): pass", "`f`, with 2 arguments: a list and an integer."),
        ("def f(", "`f`, with 2 arguments: a list and an integer."),
    ],
)
def test_arguments_are_named_as_in_the_seed_if_the_tests_fit_it(program, said):
    assert state_interface("Add up.", "f", TWO, program) == f"Add up. The function to write is {said}"


def test_signatures_and_names_in_prose():
    assert [name for name, _ in signatures("`f(x)`, f(1), g(), h(a, b=(1, 2)), x.y(z), element(s), open(")] == [
        "f",
        "h",
    ]
    assert named_functions("Use a list called `xs`, the function `len` and the function `f`; def g(x): def h") == {
        "f",
        "g",
    }
    assert named_functions("A function that returns (x)") == set()
    (_, head), *_ = signatures("f(a, b=1)")
    assert fits(head, calls_of("f", "assert f(1) == f(a=1, b=2)")) and not fits(head, calls_of("f", "f(1, 2, 3)"))
    assert not fits(head, calls_of("f", "f(1, a=2)"))


def reply(question, *tests):
    return {"id": question, "source": "s", "reply": question + "\n```python\n" + "\n".join(tests) + "\n```"}


def test_what_contradicts_the_question_is_dropped_and_counted():
    rows = [
        reply("Write the function `f(a)`.", "assert f(1) == 1", "assert f(1, 2) == 1", "assert g(1) == 1"),
        reply("The function `f` adds up.", "assert f(1) == 1", "assert g(2) == 1", "assert g(3) == 1"),
        reply("The function `f` counts.", "assert g(2) == 1", "assert g(3) == 1"),
        reply("Now add all of them.", "assert f(1) == 1", "assert g(2) == 1", "assert g(3) == 1"),
    ]
    problems, counts = problems_from_replies(rows, [{"id": "Now add all of them.", "program": "def g(x): pass"}])
    assert [problem.tests for problem in problems] == [
        ("assert f(1) == 1",),
        ("assert f(1) == 1",),
        ("assert g(2) == 1", "assert g(3) == 1"),
    ]
    assert problems[2].question == "Now add all of them. The function to write is `g(x)`."
    assert counts["tests: call it otherwise than the question says"] == 1
    assert counts["tests: call another function"] == 4
    assert counts["replies: its tests call another function than its question names"] == 1
    assert counts["questions: function and arguments named by us"] == 1
