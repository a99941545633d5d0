"""The rooms are as docs/architecture.md draws them, and are entered by their doors."""

import ast
import re
import subprocess
import sys
from importlib import import_module

import grimp
import pytest

from acelib.core import ROOT
from runner.notebooks import code

PAGE = (ROOT / "docs" / "architecture.md").read_text()
GRAPH = grimp.build_graph("acelib", cache_dir=None)
ROOMS = sorted(module for module in GRAPH.find_children("acelib") if GRAPH.find_children(module))
OPEN = ("acelib.pocket", "acelib.judge")  # notebooks and bench may walk in: the small world, and how the judge works


def node(module: str) -> str:
    """Where a module stands in the diagram."""
    top = ".".join(module.split(".")[:2])
    return top.rpartition(".")[2] if top in ROOMS or top == "acelib.__main__" else "ideas"


def arrows_of_imports() -> set[tuple[str, str]]:
    """(importer, imported) of the diagram's nodes, without those that follow from others."""
    direct = {
        (node(module), node(other))
        for module in GRAPH.modules - {"acelib"}
        for other in GRAPH.find_modules_directly_imported_by(module) - {"acelib"}
    }
    direct = {(a, b) for a, b in direct if a != b}

    def reached(start):
        further = {b for a, b in direct if a == start}
        return further.union(*map(reached, further))

    return {(a, b) for a, b in direct if not any(b in reached(c) for x, c in direct if x == a)}


def test_the_diagram_shows_the_imports():
    diagram = re.search(r"```mermaid\n(.*?)```", PAGE, re.S)[1]
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)$", diagram, re.M))
    found = arrows_of_imports()
    if drawn != found:
        arrows = "\n".join(f"    {a} --> {b}" for a, b in sorted(found))
        pytest.fail(f"these arrows belong into the diagram of docs/architecture.md:\n{arrows}", pytrace=False)


def test_each_room_has_a_sentence():
    named = set(re.findall(r"^\| `(\w+)/` \|", PAGE, re.M))
    assert named == {room.removeprefix("acelib.") for room in ROOMS}


def test_the_page_names_what_exists():
    named = set(re.findall(r"`([\w./-]+(?:/|\.(?:py|md|yaml|toml|ipynb|jsonl)))`", PAGE))
    assert len(named) > 20
    missing = [name for name in named if not any((base / name).exists() for base in (ROOT, ROOT / "acelib"))]
    assert not missing, f"docs/architecture.md names what is not there: {', '.join(sorted(missing))}"


def from_imports(source: str) -> list[str]:
    return [one.module for one in ast.walk(ast.parse(source)) if isinstance(one, ast.ImportFrom) and one.module]


def test_rooms_are_entered_by_their_doors():
    past = [
        f"{importer} -> {inside}"
        for room in ROOMS
        for inside in GRAPH.find_descendants(room)
        for importer in GRAPH.find_modules_that_directly_import(inside)
        if importer != room and not importer.startswith(f"{room}.")
    ]
    readers = {path.name: "\n".join(code(path)) for path in (ROOT / "notebooks").glob("*.ipynb")}
    readers |= {
        path.name: path.read_text()
        for folder in ("bench", "experiments", "runner", "tools")
        for path in (ROOT / folder).glob("*.py")
    }
    past += [
        f"{name} -> {module}"
        for name, source in readers.items()
        for module in from_imports(source)
        if module in GRAPH.modules and module.count(".") > 1 and not module.startswith(OPEN)
    ]
    assert not past, f"import these from the room, and name them in its __init__.py: {', '.join(sorted(past))}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_door_offers_what_is_there(room):
    door = import_module(room)
    assert all(hasattr(door, name) for name in getattr(door, "__all__", ()))


def test_doors_and_what_all_stand_on_import_no_heavy_library():
    light = [*ROOMS, *sorted(GRAPH.find_descendants("acelib.core") | GRAPH.find_descendants("acelib.judge"))]
    light = [module for module in light if ".inside." not in module]  # these run in the sandbox
    script = (
        f"import sys, {', '.join(light)}; print(*{{'torch', 'transformers', 'datasets', 'ray'}} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "", ended.stdout
    assert ended.returncode == 0, ended.stderr
