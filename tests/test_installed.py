"""Functions from packages on disk become seeds; nothing of them is imported or run."""

import json

import pytest

from acelib.__main__ import main
from acelib.core.tables import read_rows
from acelib.synthesis import load_seeds
from tools import installed, seeds
from tools.installed import MAX_BYTES, Installed, Package, functions, rows_of, site_packages, standard_library

GOOD = '''def {name}(text, width=3):
    """Cut the text into parts of that width."""
    return [text[i : i + width] for i in range(0, len(text), width)]
'''


def names(text):
    return [name for name, _ in functions(text)]


def test_a_function_comes_with_the_imports_that_it_needs():
    text = '''import math, os
from collections import Counter as C, OrderedDict
from . import sibling

LIMIT = 3

def area(radius):
    """The area of a circle, and how often each radius came."""
    # a remark stays
    return math.pi * radius**2, C([radius])
'''
    ((name, program),) = functions(text)
    assert name == "area" and "# a remark stays" in program
    assert program.startswith("from collections import Counter as C\nimport math\n\n\ndef area(radius):\n")


@pytest.mark.parametrize(
    "text",
    [
        GOOD.format(name="f").replace("Cut the text into parts of that width.", "Cut."),
        GOOD.format(name="f").replace('    """Cut the text into parts of that width."""\n', ""),
        "LIMIT = 3\n" + GOOD.format(name="f").replace("width=3", "width=LIMIT"),
        "from .a import cut\n" + GOOD.format(name="f").replace("len(", "cut("),
        "import os\n" + GOOD.format(name="f").replace("len(text)", "os.getpid()"),
        "import random\n" + GOOD.format(name="f").replace("len(text)", "random.random()"),
        GOOD.format(name="f").replace("len(text)", "len(open(text).read())"),
        GOOD.format(name="f").replace("len(text)", "text.node.size"),
        GOOD.format(name="f").replace("len(text)", "text.__class__"),
        GOOD.format(name="f").replace("return [", "yield from ["),
        GOOD.format(name="f").replace("return [", "x = ["),
        GOOD.format(name="f").replace("text, width=3", "self, text, width"),
        GOOD.format(name="f").replace("text, width=3", ""),
        GOOD.format(name="f").replace("text, width=3", "text: Text, width=3"),
        "@cache\n" + GOOD.format(name="f"),
        "async " + GOOD.format(name="f"),
        "class A:\n    " + GOOD.format(name="f").replace("\n    ", "\n        "),
        "if True:\n    " + GOOD.format(name="f").replace("\n    ", "\n        "),
        GOOD.format(name="f").replace("    return", "    class A: pass\n    return"),
        GOOD.format(name="f").replace("    return", "    import os\n    return"),
        GOOD.format(name="f").replace("    return", "    global x\n    return"),
        GOOD.format(name="f").replace("    return", "    x = 1\n" * 40 + "    return"),
        GOOD.format(name="f") + "def g(:\n",
        GOOD.format(name="f") + "\0",
        "",
    ],
)
def test_what_does_not_stand_for_itself_is_no_seed(text):
    assert names(text) == []


def test_inner_functions_exceptions_and_patterns_bind_names():
    text = '''def f(values, /, *rest, key=None, **more):
    """Everything that Python can bind inside a function."""
    def inner(a):
        return a if key else [b for b in rest]
    try:
        first, *others = values
    except ValueError as error:
        return str(error)
    match first:
        case [x, *tail]:
            return inner(x), tail
        case {"k": y, **others}:
            return y
        case z if (w := z):
            return (lambda q: q)(w)
    return größe(values) if False else more

def größe(wert):
    """Ein Name mit Umlaut und vier Wörtern."""
    return wert.upper()
'''
    assert names(text) == ["größe"]  # f calls a function of the module
    assert names(text.replace("größe(values) if False else more", "more")) == ["f", "größe"]


def package(root, files, name="mine"):
    for file, content in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    return Package(name, "1.0", "MIT", root, tuple(sorted(files)))


def test_odd_files_cost_themselves_alone(tmp_path):
    files = {
        "mine/__init__.py": GOOD.format(name="f"),
        "mine/broken.py": "def f(:",
        "mine/latin.py": b"# coding: latin-1\n" + GOOD.format(name="gr\u00f6\u00dfe").encode("latin-1"),
        "mine/lies.py": b"# coding: utf-8\n\xff\xfe",
        "mine/unknown.py": "# coding: klingon\n" + GOOD.format(name="f"),
        "mine/huge.py": GOOD.format(name="f") + "#" * 10 * MAX_BYTES,
        "mine/deep.py": GOOD.format(name="f") + "x = " + "(" * 5000 + ")" * 5000,
        "mine/silent.py": "def f(x):\n    return x\n" * 50,
        "mine/runs.py": "raise SystemExit\n" + GOOD.format(name="late"),
    }
    mine = package(tmp_path, files)
    (tmp_path / "mine/loop.py").symlink_to("loop.py")
    found = [row for file in (*mine.files, "mine/gone.py", "mine/loop.py") for row in rows_of(mine, file)]
    assert [row["id"] for row in found] == ["mine.f", "mine.latin.größe", "mine.runs.late"]
    assert found[0] == {
        "id": "mine.f",
        "source": "packages",
        "program": GOOD.format(name="f"),
        "package": "mine",
        "version": "1.0",
        "licence": "MIT",
    }


def test_packages_take_turns_and_any_place_can_be_gone_on_from(tmp_path):
    many = {f"many/m{n}.py": GOOD.format(name=f"f{n}") + GOOD.format(name=f"g{n}") for n in range(5)}
    every = (package(tmp_path, many, "many"), package(tmp_path, {"one.py": GOOD.format(name="only")}, "one"))
    source = Installed("installed", "1", every)
    rows = list(source.rows())
    assert len(rows) == 11 and [row["package"] for row in rows[:4]] == ["many", "many", "one", "many"]
    assert all(list(source.rows(skip=place)) == rows[place:] for place in range(12))


def test_what_is_installed_here_is_found_with_its_licences():
    python, others = standard_library(), {one.name: one for one in site_packages()}
    assert "textwrap.py" in python.files and not any(name.startswith("test/") for name in python.files)
    assert others["numpy"].licence.startswith("BSD") and any(
        name.startswith("numpy/") for name in others["numpy"].files
    )
    assert not any(".." in name or "/tests/" in name for one in others.values() for name in one.files)
    assert len([row for file in ("bisect.py", "textwrap.py", "colorsys.py") for row in rows_of(python, file)]) >= 2


def test_the_command_writes_seeds_with_their_origin_and_a_card(tmp_path, monkeypatch, capsys):
    mine = package(
        tmp_path,
        {
            "mine/a.py": GOOD.format(name="f") + GOOD.format(name="f"),
            "mine/b.py": "def total(prices):\n"
            '    """The sum of the prices, rounded."""\n    return round(sum(prices))\n',
            "mine/c.py": 'def has_pair(items, gap):\n    """Any two items with that gap between them?"""\n'
            "    return any(b - a == gap for a in items for b in items)\n",
        },
    )
    monkeypatch.setattr(Installed, "open", classmethod(lambda cls: cls("installed", "python 3, packages x", (mine,))))
    (tmp_path / "bench.jsonl").write_text(
        json.dumps({"task_id": "b/1", "prompt": "Sum.", "canonical_solution": "def total(prices): return 1"})
    )
    out = tmp_path / "out"
    words = ["seeds", str(out), "--installed", "--decontaminate", str(tmp_path / "bench.jsonl")]
    assert main(words) == 0 and "exact duplicate" in capsys.readouterr().out
    rows = read_rows(out / "seeds.jsonl")
    assert {row["id"] for row in rows} == {"packages/mine.a.f", "packages/mine.c.has_pair"}
    assert all((row["package"], row["version"], row["licence"]) == ("mine", "1.0", "MIT") for row in rows)
    assert {row["reason"] for row in read_rows(out / "dropped.jsonl")} == {"benchmark signature", "exact duplicate"}
    card = (out / "README.md").read_text()
    assert "| mine | 1.0 | MIT | 2 |" in card and "functions of the standard library and the installed" in card
    assert [set(row) >= {"id", "source", "program"} for row in load_seeds(out / "seeds.jsonl")] == [True, True]
    assert main(words) == 0 and "nothing it depends on has changed, kept" in capsys.readouterr().out
    assert seeds.INSTALLED == "installed" and not installed.TESTS & {"mine"}
