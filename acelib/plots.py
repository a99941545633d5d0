"""One look for every figure: colour-blind safe, legible on a phone."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.style

# Okabe & Ito (2008): distinguishable with the common forms of colour blindness.
COLOURS = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
    "grey": "#7F7F7F",
}

# Who or what a line or bar stands for: the same colour in every notebook.
ROLE_COLOURS = {
    "before": COLOURS["grey"],  # the policy before training; also chance, and what the paper measured
    "sample": COLOURS["sky"],  # an average sample of a model: pass@1
    "greedy": COLOURS["black"],  # a model's greedy program
    "right": COLOURS["green"],  # true tests and what they say; the oracle, pass@k
    "wrong": COLOURS["vermillion"],
    "rule": COLOURS["blue"],  # the surviving tests, and the policy trained on their verdicts
    "reward model": COLOURS["purple"],  # and the policy trained on its scores
    "unfiltered": COLOURS["orange"],  # all tests that the teacher imagined, and the reward model made from them
}


def use_style() -> None:
    """Set matplotlib's defaults for this process to those of `plots.mplstyle`."""
    mpl.style.use(Path(__file__).with_suffix(".mplstyle"))


def band(ax, x, low, high, colour: str) -> None:
    """Shade an interval [low, high] over x, in the colour of the line it belongs to."""
    ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def percent_axis(axis) -> None:
    """Show shares in [0, 1] as percentages on `ax.xaxis` or `ax.yaxis`."""
    axis.set_major_formatter(mpl.ticker.PercentFormatter(xmax=1, decimals=0))


def points_axis(axis) -> None:
    """Show differences of shares in points on `ax.xaxis` or `ax.yaxis`: +0.1 as +10; its label has to say "points"."""
    axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{100 * value:+.0f}" if value else "0"))
