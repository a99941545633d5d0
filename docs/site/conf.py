"""The book of the course (`make site`): pages, their order, and how they look. Sphinx reads it; no notebook is run.

The repository's root is the source, so that links between notebooks and pages are those that one follows on a disk.
"""

import os
import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from pygments.lexers.special import TextLexer

# Owner/name on GitHub; without it there are no buttons for Colab and codespaces. GitHub's own workflows set it.
REPOSITORY = os.environ.get("GITHUB_REPOSITORY", "")
BRANCH = "main"

START = "README"
PAGES = {
    "The course": [
        "notebooks/00_start_here",
        "notebooks/01_test_synthesis",
        "notebooks/02_test_filtering",
        "notebooks/03_preference_pairs",
        "notebooks/04_reward_model",
        "notebooks/05_best_of_n",
        "notebooks/06_reinforcement_learning",
        "notebooks/07_evaluation",
        "notebooks/08_what_works",
        "notebooks/09_filters",
        "notebooks/10_what_a_reward_rests_on",
    ],
    "Appendices": [
        "notebooks/A1_fooling_the_judge",
        "notebooks/A2_reinforcement_learning_from_zero",
        "notebooks/A3_selectors",
        "notebooks/A4_distinguishing_tests",
        "notebooks/A5_a_real_model",
        "notebooks/A6_filters_for_free",
    ],
    "Beside the course": ["docs/results", "docs/glossary", "docs/teaching"],
    "The code": [
        "docs/architecture",
        "docs/data",
        "docs/hardware",
        "docs/scaling",
        "bench/README",
        "docs/real",
        "data/README",
        "data/real/README",
        "CHANGELOG",
    ],
    "Taking part": ["CONTRIBUTING", "SECURITY"],
}

project = "AceCoder on your desk"
author = "The course's authors"
html_title = project
root_doc = START
include_patterns = [f"{page}.*" for page in (START, *sum(PAGES.values(), []))]
extensions = ["myst_nb", "sphinx_copybutton"]

nb_execution_mode = "off"  # the committed outputs are shown as they are
nb_render_markdown_format = "myst"  # tables, too
suppress_warnings = ["myst.header"]  # the glossary's words are small headings
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_dmath_double_inline = True
myst_dmath_allow_digits = myst_dmath_allow_space = False  # "$2 and $3" are dollars
myst_heading_anchors = 4

html_theme = "sphinx_book_theme"
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the search stands in the sidebar
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
}
if REPOSITORY:
    html_theme_options |= {
        "repository_url": f"https://github.com/{REPOSITORY}",
        "repository_branch": BRANCH,
        "use_repository_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com"},
    }
html_extra_path = ["index.html"]
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"  # drawn by the browser itself: the book needs no network
html_copy_source = False
linkcheck_anchors_ignore_for_url = [r"https://github\.com/"]  # its lines are numbered by the browser
linkcheck_timeout = 20


def with_contents(app: Any, page: str, source: list[str]) -> None:
    """End the first page in the table of contents, which GitHub need not show."""
    if page == START:
        for caption, pages in PAGES.items():
            listed = "\n".join(f"/{one}" for one in pages)
            source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{listed}\n```\n"


def describe(app: Any, doctree: nodes.document, page: str) -> None:
    """Give each figure its caption, which follows it in italics, as the text for those who cannot see it."""
    for image in doctree.findall(nodes.image):
        if caption := image.next_node(nodes.emphasis, ascend=True):
            image.setdefault("alt", caption.astext())


def offer_codespace(app: Any, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Put "Codespace" beside the theme's "Colab", which stands on the pages of notebooks where REPOSITORY is known."""
    for button in context.get("header_buttons", []):
        if button.get("label") == "launch-buttons":
            link = {"type": "link", "text": "Codespace", "tooltip": "Open in a codespace", "icon": "fab fa-github"}
            button["buttons"].append(link | {"url": f"https://codespaces.new/{REPOSITORY}"})


def mathml(translator: Any, node: nodes.Element) -> None:
    """Write a formula as MathML; the build stops at a command that docutils does not know."""
    block = isinstance(node, nodes.math_block)
    latex = re.sub(r"\\([bB]igg?)(?![A-Za-z])", r"\\\1l", node.astext()).replace(r"\dots", r"\ldots")
    text = tex2mathml(latex, as_block=block)
    translator.body.append(f'<div class="formula">{text}</div>' if block else text)
    raise nodes.SkipNode


def setup(app: Any) -> None:
    app.connect("source-read", with_contents)
    app.connect("doctree-resolved", describe)
    app.connect("html-page-context", offer_codespace, priority=502)  # the theme's buttons are there at 501
    app.add_lexer("mermaid", TextLexer)  # GitHub draws them; their text is readable as well
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
