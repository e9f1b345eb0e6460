"""What all figures have in common: one width, one size of letters, plain axes, one legend, and fixed colours.

The same query has the same colour in every picture of every run.
"""

from collections.abc import Iterable, Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Inches, and points.
WIDTH, FONT = 9.6, 9
# So few points of a line are marked one by one.
FEW_POINTS = 40
# Okabe and Ito's seven colours, told apart with any colour vision, in an order in which neighbours differ in lightness.
_PHASES = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
# Paul Tol's "muted" nine, for what is not a phase.
_OTHERS = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499")

# Roles that pictures mark beside the queries' own colours.
TRUTH, BEST, FURTHER, CHANCE = "#0072B2", "#D55E00", "#E6B98F", "#767676"
# Single values behind their running mean.
LOGGED = "#A9CCE3"
# Tracks and controls of line plots, by name, so that a missing one moves no other.
LINES = {
    "similarity-only": "#0072B2",
    "+query-set": "#E69F00",
    "+procedure-order": "#009E73",
    "+temporal": "#D55E00",
    "time prior": "#CC79A7",
    "random": CHANCE,
}


def blank(height: float, title: str = "", *, top: float = 0.0) -> Figure:
    """A figure with nothing but its title; height: in inches.  top: of the title, as a share of the height."""
    figure = Figure(figsize=(WIDTH, height), facecolor="white")
    if title:
        figure.text(0.01, top or 1 - 0.1 / height, title, fontsize=11, va="top")
    return figure


def dress(axes: Axes, *, without: Iterable[str] = ("top", "right")) -> None:
    """Small numbers at the ticks, and no frame on the sides that carry none."""
    axes.tick_params(labelsize=FONT)
    for side in without:
        axes.spines[side].set_visible(False)


def name_lines(figure: Figure, grid: Iterable[Axes]) -> None:
    """One legend below all axes, each name once."""
    named: dict[str, Artist] = {}
    for axes in grid:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    if named:
        figure.legend(named.values(), named, loc="lower center", ncols=len(named), frameon=False, fontsize=FONT)


def query_colours(kinds: Sequence[str]) -> list[str]:
    """A colour "#rrggbb" per query by its place among those of its sort: phases, and all others.

    kinds: "phase", "tool" or "free". Colours repeat from the eighth phase and the tenth other on; numbers and names in
    the pictures do not.

    >>> query_colours(["phase", "tool", "phase"])
    ['#E69F00', '#332288', '#56B4E9']
    """
    seen = {True: 0, False: 0}
    colours = []
    for kind in kinds:
        is_phase = kind == "phase"
        palette = _PHASES if is_phase else _OTHERS
        colours.append(palette[seen[is_phase] % len(palette)])
        seen[is_phase] += 1
    return colours


def ink_on(colour: str) -> str:
    """Black or white, whichever is read more easily on "#rrggbb" (WCAG relative luminance).

    >>> ink_on("#F0E442"), ink_on("#332288")
    ('black', 'white')
    """
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    # Where the contrasts with black and with white, (L + 0.05) / 0.05 and 1.05 / (L + 0.05), are equal.
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"
