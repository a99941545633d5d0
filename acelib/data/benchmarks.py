"""Benchmark files as problems for the judge: the course's own rows, HumanEval(+) and MBPP(+), told by their columns.

Question and entry point are what EvalPlus shows a model: HumanEval's prompt as it is, MBPP's text with its first test.
"""

import ast
import re
import warnings
from collections import Counter
from dataclasses import replace
from itertools import accumulate, groupby
from pathlib import Path

from acelib.core import DataError, Profile, read_rows
from acelib.data.sources import read_split
from acelib.judge import why_invalid
from acelib.schema import Problem, Row, as_tests, as_text, entry_point_of

MAX_REFEREE_CHARS = 300_000  # EvalPlus has tests of many megabytes; the judge reads a million characters at a time


def read_benchmark(path: str | Path, split: str = "test") -> list[Problem]:
    """The problems of a .jsonl, .jsonl.gz or .parquet file, or of a `split` of a hub data set (`owner/name`, or a
    folder laid out like one), in one of these layouts:

    - the course's: `task_id`, `question`, `entry_point`, `tests`;
    - HumanEval and HumanEval+: `task_id`, `prompt`, `entry_point`, `test` with its `check(candidate)`;
    - MBPP, sanitized MBPP and MBPP+: `task_id`, `text` or `prompt`, `test_list`; where there are any, also
      `test_setup_code`, `test_imports`, `code` and (MBPP+) `test`, which then replaces `test_list`.

    Raises DataError when it is missing or unreachable, has no problems, or a row is of no such layout or has no
    tests.
    """
    rows = benchmark_rows(path, split)
    problems = [_problem(row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]
    if len({problem.id for problem in problems}) < len(problems):
        raise DataError(f"{path} holds two problems with the same task_id; give every problem its own.")
    return problems


def load_benchmark(profile: Profile, limit: int | None = None) -> list[Problem]:
    """The first `limit` (default `evaluation.questions`) held-out problems of the profile. Raises DataError."""
    return read_benchmark(profile.resolve(profile.data.benchmark))[: limit or profile.evaluation.questions]


def benchmark_rows(path: str | Path, split: str = "test") -> list[Row]:
    """The rows of a benchmark, whatever their layout, from where `read_benchmark` finds it. Raises DataError."""
    if Path(path).is_file():
        rows = read_rows(path)
    elif Path(path).is_dir() or re.fullmatch(r"[\w.-]+/[\w.-]+(?<!\.jsonl)(?<!\.gz)(?<!\.parquet)", str(path)):
        rows = read_split(str(path), split)
    else:
        raise DataError(
            f"There is no benchmark at {path}; correct data.benchmark or data.decontaminate in "
            "the profile: a file, or a hub name such as evalplus/humanevalplus."
        )
    if not rows:
        raise DataError(f"{path} holds no problems; correct data.benchmark or data.decontaminate in the profile.")
    return rows


def _problem(row: Row, place: str) -> Problem:
    row = {key: value for key, value in row.items() if value is not None}
    try:
        if {"task_id", "question", "entry_point", "tests"} <= row.keys():
            question, name = (as_text(row[column], place, column) for column in ("question", "entry_point"))
            problem = Problem(str(row["task_id"]), question, name, as_tests(row["tests"], place, "tests"), "benchmark")
        elif {"task_id", "prompt", "entry_point", "test"} <= row.keys():
            problem = _humaneval(row)
        elif {"task_id", "test_list"} <= row.keys() and ("text" in row or "prompt" in row):
            problem = _mbpp(row)
        else:
            raise TypeError(
                "it is of EvalPlus's own release, without results; take evalplus/humanevalplus or evalplus/mbppplus"
                if "base_input" in row
                else f"it has {', '.join(row) or 'no columns'}; it needs task_id, question, entry_point and tests, or "
                "the columns of HumanEval or MBPP"
            )
    except (SyntaxError, TypeError, AttributeError) as error:
        raise DataError(f"{place} is no benchmark problem ({error}); mend or drop the row.") from error
    reasons = {test: why_invalid(test, problem.entry_point or "") for test in problem.tests}
    kept = tuple(test for test in problem.tests if not reasons[test])
    why = next(filter(None, reasons.values()), "it has none")
    if not kept or not problem.entry_point:
        raise DataError(f"{place} has no test that checks anything ({why}); drop the row.")
    if len(kept) < len(problem.tests):
        warnings.warn(f"{place}: {len(problem.tests) - len(kept)} tests check nothing ({why}); left out.", stacklevel=2)
    return replace(problem, tests=kept)


def _humaneval(row: Row) -> Problem:
    prompt, name, tests = row["prompt"], row["entry_point"], row["test"]
    # What the prompt gives besides the function: imports, and the helpers of HumanEval 32, 38 and 50.
    given = "\n\n".join(ast.unparse(node) for node in ast.parse(prompt).body if getattr(node, "name", None) != name)
    source = "HumanEval+" if "assertion(" in tests else "HumanEval"
    return Problem(str(row["task_id"]), prompt.strip(), name, tuple(check_tests(tests, name)), source, prelude=given)


def _mbpp(row: Row) -> Problem:
    listed = list(as_tests(row["test_list"], f"MBPP {row['task_id']}", "test_list"))
    name = row.get("entry_point") or _tested(listed, row.get("code", "")) or entry_point_of(listed)
    imports, text = "\n".join(row.get("test_imports", ())), row.get("text") or row["prompt"]
    tests = evalplus_tests(row["test"], name) if "test" in row else [_with_imports(test, imports) for test in listed]
    question = f"{text.strip()}\n\nYour code should pass this test:\n{listed[0]}" if listed else text
    number, source = str(row["task_id"]).removeprefix("Mbpp/"), "MBPP+" if "test" in row else "MBPP"
    setup = row.get("test_setup_code", "")
    return Problem(f"MBPP/{number}", question, name, tuple(tests), source, prelude=imports, setup=setup)


def _tested(tests: list[str], code: str) -> str | None:
    """The function of `code` that most tests name. (Some of MBPP's are called `sum` or `reverse`.)"""
    defined = {node.name for node in ast.parse(code).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    named = Counter(n.id for test in tests for n in ast.walk(ast.parse(test)) if isinstance(n, ast.Name))
    return max(defined & named.keys(), key=lambda name: (named[name], name), default=None)


def _with_imports(test: str, imports: str) -> str:
    """The test after the imports it needs; without, it stays one plain assert, which the judge compares itself."""
    bound = {name.asname or name.name for node in ast.walk(ast.parse(imports)) for name in getattr(node, "names", ())}
    used = {node.id for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)}
    return f"{imports}\n{test}" if (bound - {"math"}) & used else test


def check_tests(test: str, entry_point: str) -> list[str]:
    """The asserts of HumanEval's `check(candidate)`, one by one; the whole of it where it is more than asserts."""
    check = _check(ast.parse(test))
    if check is None:
        raise TypeError("its test defines no check(candidate)")
    body = [node for node in check.body if not isinstance(node, (ast.Expr, ast.Pass))]
    if not all(isinstance(node, ast.Assert) for node in body):
        return evalplus_tests(test, entry_point)
    for node in ast.walk(check):
        if isinstance(node, ast.Name) and node.id == "candidate":
            node.id = entry_point
    return [ast.unparse(node) for node in body if any(isinstance(part, ast.Call) for part in ast.walk(node))]


def _check(tree: ast.Module) -> ast.FunctionDef | None:
    return next((n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check"), None)


def evalplus_tests(test: str, entry_point: str) -> list[str]:
    """EvalPlus's `for inp, exp in zip(inputs, results): assertion(f(*inp), exp, 0)` as one assert per input.

    Inputs whose result is compared with a tolerance (or is no literal) stay in EvalPlus's own words, in few tests of
    bounded length; so does, as one test, whatever is written otherwise.
    """
    tree = ast.parse(test)
    check = _check(tree)
    called = any(isinstance(n, ast.Expr) and "check(" in ast.unparse(n) for n in tree.body)
    call = f"\ncheck({entry_point})\n" if check and not called else "\n"
    body = (check or tree).body
    lists = {n.targets[0].id: n.value for n in body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name)}
    given, results = (getattr(lists.get(name), "elts", None) for name in ("inputs", "results"))
    loops = [ast.unparse(n.body) for n in body if isinstance(n, ast.For)]
    loop = re.fullmatch(r"assertion\(\w+\(\*inp\), exp, ([-+.\w]+)\)", loops[0]) if len(loops) == 1 else None
    if loop is None or given is None or results is None or len(given) != len(results):
        return [test + call]
    exact, rough = [], []
    for inputs, result in zip(given, results):
        if loop[1] == "0" and isinstance(inputs, ast.List) and _is_exact(inputs, result):
            exact.append(f"assert {entry_point}({', '.join(map(ast.unparse, inputs.elts))}) == {ast.unparse(result)}")
        else:
            rough.append((inputs, result))
    lengths = accumulate(sum(len(ast.unparse(one)) for one in pair) for pair in rough)
    for _, part in groupby(zip(rough, lengths), lambda one: one[1] // MAX_REFEREE_CHARS):
        lists["inputs"].elts, lists["results"].elts = map(list, zip(*(pair for pair, _ in part)))
        exact.append(ast.unparse(tree) + call)
    return exact


def _is_exact(given: ast.expr, result: ast.expr) -> bool:
    """Whether both are literals and the result holds no float, for which EvalPlus allows a tolerance."""
    try:
        ast.literal_eval(given), ast.literal_eval(result)
    except (ValueError, TypeError, RecursionError, MemoryError):
        return False
    return not any(isinstance(n, ast.Constant) and isinstance(n.value, (float, complex)) for n in ast.walk(result))
