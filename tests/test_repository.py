"""What a visitor reads first is true: commands exist, names can be imported, forms are forms."""

import ast
import re
from importlib import import_module

import pytest
import yaml

from acelib.core import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
PAGES += [*(ROOT / "docs").glob("*.md"), *(ROOT / "bench").glob("*.md"), *(ROOT / ".github").rglob("*.*")]
NOW = re.findall(r"^\| .* \| `(from acelib[^`]*)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_targets_and_links_of_a_page_are_there(page):
    text, folder = page.read_text(), page.parent
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:`|^|run: )make ([a-z-]+)", text, re.M)) <= targets
    links = [one for one in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in one]
    assert all((folder / one).exists() for one in links), links


@pytest.mark.parametrize("line", NOW)
def test_a_name_that_moved_is_where_the_changes_say(line):
    (found,) = ast.parse(line).body
    module = import_module(found.module)
    assert all(hasattr(module, name.name) for name in found.names)


def test_a_script_that_is_started_as_a_file_finds_what_it_imports():
    """The checkout is no package: only `python -m` finds what lies beside `acelib` in it."""
    texts = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("bench/*.md"),
        *ROOT.glob("data/**/*.md"),
        *ROOT.glob("[bert]*/*.py"),
    ]
    said = {
        name
        for text in texts
        for name in re.findall(r"python ((?:bench|experiments|runner|tests|tools)/[\w/]+\.py)", text.read_text())
    }
    assert "bench/judge.py" in said
    for name in sorted(said):
        program = (ROOT / name).read_text()
        beside = re.search(r"^(?:from|import) (?:bench|experiments|runner|tools)\b", program, re.MULTILINE)
        assert not beside or "sys.path.insert(0" in program, f"write `python -m {name[:-3].replace('/', '.')}`"


def test_the_citation_has_what_its_format_asks_for():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys() and citation["cff-version"] == "1.2.0"
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= paper.keys() and "2502.01718" in paper["url"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_an_issue_form_can_be_read(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"] and form["description"]
    named = [one["id"] for one in form["body"]]
    assert len(set(named)) == len(named) and all(one["attributes"]["label"] for one in form["body"])


def test_the_workflow_pins_what_it_uses_and_may_do_nothing_but_read():
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    workflow = yaml.safe_load(text)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]) for step in steps if "uses" in step)
    assert workflow["permissions"] == {"contents": "read"} and "secrets." not in text
    assert [step["with"]["path"] for step in steps if "actions/cache@" in step.get("uses", "")] == [".cache/pip"] * 2
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
