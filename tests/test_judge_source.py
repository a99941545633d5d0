"""No code of this repository executes model text in its own process: one test reads the text, one the syntax tree."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INSIDE = ROOT / "acelib" / "judge" / "inside"  # runs in the sandbox only
SANDBOXED = {"candidate.py", "referee.py"}
NAIVE = "A1_fooling_the_judge.ipynb"  # its naive executor is a script for a throw-away subprocess, held as text
# Published reference programs and the bench's own, in a process of their own: its floor, and the paper's executor.
BENCH = ROOT / "bench" / "judge.py"
CALLS = {"exec", "eval", "compile", "__import__", "runsource", "runcode", "run_cell", "run_path", "run_module"}


def sources():
    for folder in ("acelib", "tests", "bench", ".ci"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.parts[-2] != "attacks":  # programs held as text, never imported as code
                yield path, path.read_text()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                yield path, re.sub(r"^[%!].*$", "pass", "".join(cell["source"]), flags=re.M)


def executing_calls(tree):
    thrown_away = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}  # nobody can execute that
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == "compile" and id(node) in thrown_away:
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
            literal = bool(node.args) and isinstance(node.args[0], ast.Constant)
            owner = node.func.value if isinstance(node.func, ast.Attribute) else None
            if isinstance(owner, ast.Name) and owner.id in ("re", "torch", "model"):  # re.compile, model.eval
                continue
            if name in CALLS and not literal and not (name == "eval" and not node.args):
                yield name, node.lineno
        elif isinstance(node, ast.Name) and node.id in ("exec", "eval") and isinstance(node.ctx, ast.Load):
            yield node.id, node.lineno


def test_the_syntax_tree_holds_no_executing_call():
    found = [
        (path.relative_to(ROOT), *call)
        for path, text in sources()
        for call in executing_calls(ast.parse(text))
        if not (path.parent == INSIDE and (path.name in SANDBOXED or call[0] == "__import__"))
        if not (path == BENCH and call[0] == "exec")
    ]
    assert found == []


def test_the_text_holds_no_exec():
    pattern = re.compile(r"(?<![\w.'\"`])(exec|eval)\(\s*[\w\[]")
    strings = {Path(__file__).name, NAIVE, "test_judge_attacks.py"}
    floor = "\"        exec(compile(source, 'program', 'exec'), {})\\n\""
    allowed = {(BENCH, line) for line in (floor, "exec(program, names)", "exec(test, names)")}
    found = [
        (path.relative_to(ROOT), line.strip())
        for path, text in sources()
        if path.name not in strings | SANDBOXED
        for line in text.splitlines()
        if pattern.search(line) and (path, line.strip()) not in allowed
    ]
    assert found == []


def test_the_tests_above_can_fail():
    assert list(executing_calls(ast.parse("exec(text)"))) and list(executing_calls(ast.parse("run = eval")))
    assert list(executing_calls(ast.parse("code = compile(text, 'x', 'exec')")))
    assert not list(executing_calls(ast.parse("compile(text, 'x', 'exec')")))
    assert not list(executing_calls(ast.parse("model.eval(); re.compile(text)")))


@pytest.mark.parametrize("path", sorted(INSIDE.glob("*.py")), ids=lambda p: p.name)
def test_code_inside_the_sandbox_imports_only_the_standard_library_and_its_neighbours(path):
    import sys

    neighbours = {p.stem for p in INSIDE.glob("*.py")}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [node.module]
        for name in names:
            assert name.split(".")[0] in neighbours | sys.stdlib_module_names
