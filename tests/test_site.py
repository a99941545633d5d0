"""The book of `make site` has every page, without building it; broken links inside it end the build itself."""

import json
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from unittest.mock import MagicMock

import pytest
import yaml

from acelib.core import ROOT
from runner.notebooks import read_notebook


@pytest.fixture
def configuration(monkeypatch):
    """What docs/site/conf.py says; Sphinx and what it brings are not installed here."""

    def read(repository=""):
        for name in ("docutils", "docutils.utils", "docutils.utils.math", "docutils.utils.math.latex2mathml"):
            monkeypatch.setitem(sys.modules, name, MagicMock())
        monkeypatch.setenv("GITHUB_REPOSITORY", repository)
        spec = spec_from_file_location("conf", ROOT / "docs" / "site" / "conf.py")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return read


def test_the_book_names_every_notebook_and_page_and_each_is_there(configuration):
    site = configuration()
    pages = [site.START, *sum(site.PAGES.values(), [])]
    files = [path for page in pages for path in ROOT.glob(f"{page}.*") if path.suffix in (".md", ".ipynb")]
    assert len(set(pages)) == len(pages) == len(files)
    assert {*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("docs/*.md")} <= set(files)
    notebooks = [page for page in pages if page.startswith("notebooks/")]
    assert notebooks == sorted(notebooks)


def test_a_notebook_opens_in_colab_where_the_repository_is_known(configuration):
    assert "repository_url" not in configuration().html_theme_options
    known = configuration("somebody/acecoder").html_theme_options
    assert known["repository_url"] == "https://github.com/somebody/acecoder" and "colab_url" in known["launch_buttons"]


def test_a_codespace_is_offered_beside_colab_and_nowhere_else(configuration):
    launch, other = {"label": "launch-buttons", "buttons": [{"text": "Colab"}]}, {"type": "link"}
    configuration("somebody/acecoder").offer_codespace(None, "", "", {"header_buttons": [other, launch]}, None)
    colab, codespace = launch["buttons"]
    assert colab["text"] == "Colab" and codespace["url"] == "https://codespaces.new/somebody/acecoder"
    assert other == {"type": "link"}


def test_a_codespace_installs_the_course_for_a_python_that_it_takes():
    wanted = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert wanted["postCreateCommand"].split() == ["make", "install"] and "install" in targets
    assert re.search(r"/python:3\.1[12]\b", wanted["image"])
    assert "ms-toolsai.jupyter" in wanted["customizations"]["vscode"]["extensions"]


def test_the_book_is_published_by_pinned_steps_and_made_by_make():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "site.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert all(len(step["uses"].partition("@")[2]) == 40 for step in job["steps"] if "uses" in step)
    assert any(step.get("run", "").startswith("make site") for step in job["steps"])
    assert workflow["permissions"] == {"contents": "read"}


def test_links_are_asked_where_nothing_waits_for_the_answer():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "links.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert all(len(step["uses"].partition("@")[2]) == 40 for step in job["steps"] if "uses" in step)
    assert workflow[True].keys() == {"schedule", "workflow_dispatch"}  # YAML reads the key `on` as true
    assert job["steps"][-1]["run"] == "make links PYTHON=python" and workflow["permissions"] == {"contents": "read"}


def test_no_formula_begins_with_an_exponent():
    """The renderer of `make site` stops at one: write what it is an exponent of into the formula."""
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        texts = [cell.source for cell in read_notebook(path).cells if cell.cell_type == "markdown"]
        assert not re.search(r"(?<!\$)\$[\^_]", "\n".join(texts)), path.name
