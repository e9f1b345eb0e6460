"""What all figures have in common: one width, one size of letters, plain axes, and one legend."""

from collections.abc import Iterable

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Inches, and points.
WIDTH, FONT = 9.6, 9
# So few points of a line are marked one by one.
FEW_POINTS = 40


def blank(height: float) -> Figure:
    """An empty figure; height: in inches."""
    return Figure(figsize=(WIDTH, height), facecolor="white")


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
