"""One look for every figure: colour-blind safe, legible on a phone."""

import matplotlib as mpl

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
CYCLE = [COLOURS[name] for name in ("blue", "orange", "green", "vermillion", "purple", "sky", "black")]


def use_style() -> None:
    """Set matplotlib's defaults for this process: 6.5 x 3.8 inches, 11 pt and up, Okabe-Ito colour cycle."""
    mpl.rcParams.update(
        {
            "figure.figsize": (6.5, 3.8),
            "figure.dpi": 110,
            "savefig.dpi": 150,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "font.size": 11.5,
            "axes.titlesize": 12.5,
            "axes.titlelocation": "left",
            "axes.labelsize": 11.5,
            "xtick.labelsize": 11,
            "ytick.labelsize": 11,
            "legend.fontsize": 11,
            "legend.frameon": False,
            "axes.prop_cycle": mpl.cycler(color=CYCLE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E3E3E3",
            "lines.linewidth": 2.0,
            "figure.facecolor": "white",
        }
    )


def band(ax, x, low, high, colour: str) -> None:
    """Shade an interval [low, high] over x, in the colour of the line it belongs to."""
    ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def percent_axis(axis) -> None:
    """Show shares in [0, 1] as percentages on `ax.xaxis` or `ax.yaxis`."""
    axis.set_major_formatter(mpl.ticker.PercentFormatter(xmax=1, decimals=0))
