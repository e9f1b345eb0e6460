"""Figures of a run's results: PR and ROC per query, mAP against tIoU, errors of the boundaries.

Arrays in, `Figure` out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xclip_module.reporting.chart import label_lines
from xclip_module.reporting.figures import BEST, CHANCE, FONT, LINES, TRUTH, blank, dress

# Panels side by side, and letters that fit above one.
_COLUMNS, _LABEL_WIDTH = 4, 25


class Panel(NamedTuple):
    """One query's curve: x, y [K] fractions, what to print above it, and its chance line from (0, a) to (1, b)."""

    name: str
    note: str
    x: np.ndarray
    y: np.ndarray
    chance: tuple[float, float]
    colour: str


class Line(NamedTuple):
    """One line against tIoU: values in fractions; low, high of its interval, or None."""

    name: str
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def curve_grid(panels: Sequence[Panel], *, labels: tuple[str, str], title: str, is_steps: bool) -> Figure:
    """A small plot per query with its chance line dashed; labels: of the x and the y axis."""
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    height = 2.35 * rows + 0.75
    figure = blank(height, title)
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=0.075, right=0.985, top=1 - 0.95 / height, bottom=0.55 / height, wspace=0.16, hspace=0.62
    )
    for index, axes in enumerate(grid.flat):
        if index >= len(panels):
            axes.set_visible(False)
            continue
        is_lowest = index + columns >= len(panels)
        _draw_panel(axes, panels[index], is_steps=is_steps, is_left=index % columns == 0, is_lowest=is_lowest)
    figure.text(0.53, 0.12 / height, labels[0], fontsize=FONT, ha="center", va="bottom")
    figure.text(0.012, 0.5, labels[1], fontsize=FONT, rotation=90, va="center", ha="left")
    return figure


def map_figure(panels: Mapping[str, Sequence[Line]], limits: Sequence[float], *, title: str) -> Figure:
    """det_mAP in percent against the tIoU that counts as found, a panel per split on one scale.

    panels: "test, 40 videos" -> its lines, each over `limits`; those of controls dashed.
    """
    figure = blank(3.5, title, top=0.98)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    figure.subplots_adjust(left=0.075, right=0.985, top=0.82, bottom=0.26, wspace=0.06)
    for axes, (name, lines) in zip(grid, panels.items(), strict=True):
        for line in lines:
            _draw_line(axes, line, limits)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("tIoU that counts as found", fontsize=FONT)
        axes.set_ylim(bottom=0)
        dress(axes)
    grid[0].set_ylabel("det_mAP (%)", fontsize=FONT)
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=5, frameon=False, fontsize=FONT)
    return figure


def boundary_figure(panels: Mapping[str, np.ndarray], totals: Mapping[str, int], *, title: str) -> Figure:
    """Histograms of start and end errors, a row per split.

    panels: split -> [N, 2] found minus true start and end in seconds.  totals: split -> pairs with truth.
    The outermost bars hold everything beyond them.
    """
    height = 2.3 * len(panels) + 0.6
    figure = blank(height, title)
    grid = figure.subplots(len(panels), 2, squeeze=False, sharex=True, sharey="row")
    figure.subplots_adjust(
        left=0.075, right=0.985, top=1 - 0.75 / height, bottom=0.55 / height, wspace=0.08, hspace=0.42
    )
    sizes = np.concatenate([np.abs(errors).ravel() for errors in panels.values()])
    # A few answers that are minutes off would press all others into the middle bar.
    reach = float(np.percentile(sizes, 95)) if len(sizes) else 1.0
    bins = np.linspace(-reach or -1.0, reach or 1.0, 32)
    for axes_row, (split, errors) in zip(grid, panels.items(), strict=True):
        for edge, axes in enumerate(axes_row):
            _draw_errors(axes, errors[:, edge], bins)
            middle = f", median {np.median(errors[:, edge]):+.1f} s".replace("-", "−") if len(errors) else ""
            name = ("start", "end")[edge]
            axes.set_title(f"{split}, {name}: n={len(errors)} of {totals[split]} pairs{middle}", fontsize=10)
        axes_row[0].set_ylabel("answers", fontsize=FONT)
    for axes in grid[-1]:
        axes.set_xlabel("found − true (s); right of 0 = too late", fontsize=FONT)
    return figure


def thinned(x: np.ndarray, y: np.ndarray, *, most: int = 200) -> np.ndarray:
    """Indices of points that draw the same line within 1/most of the plot's width and height: ends and turns stay."""
    cells = np.round(np.stack([x, y]) * most)
    keep = np.ones(len(x), bool)
    keep[1:] = (np.diff(cells, axis=1) != 0).any(axis=0)
    keep[-1] = True
    return np.flatnonzero(keep)


def _draw_panel(axes: Axes, panel: Panel, *, is_steps: bool, is_left: bool, is_lowest: bool) -> None:
    axes.plot((0, 1), panel.chance, color=CHANCE, lw=1, ls="--")
    # Black below, or the light colours of some queries are lost on white.
    axes.plot(panel.x, panel.y, color="black", lw=2.2, drawstyle="steps-post" if is_steps else "default")
    axes.plot(panel.x, panel.y, color=panel.colour, lw=1.4, drawstyle="steps-post" if is_steps else "default")
    axes.set_title(f"{label_lines(panel.name, _LABEL_WIDTH)}\n{panel.note}", fontsize=FONT, linespacing=1.15, pad=7)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), yticks=(0, 0.5, 1))
    axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    axes.tick_params(labelbottom=is_lowest, labelleft=is_left)
    dress(axes)


def _draw_line(axes: Axes, line: Line, limits: Sequence[float]) -> None:
    is_track = line.low is not None
    colour = LINES.get(line.name, "black")
    style = {"ls": "-", "marker": "o", "ms": 3.5} if is_track else {"ls": "--"}
    axes.plot(limits, 100 * np.array(line.values, float), color=colour, lw=1.6, label=line.name, **style)
    if line.low is not None and line.high is not None:
        low, high = (100 * np.array(edge, float) for edge in (line.low, line.high))
        axes.fill_between(limits, low, high, color=colour, alpha=0.15, lw=0)


def _draw_errors(axes: Axes, errors: np.ndarray, bins: np.ndarray) -> None:
    axes.hist(np.clip(errors, bins[0], bins[-1]), bins=bins.tolist(), color=TRUTH)
    axes.axvline(0, color="black", lw=1)
    if len(errors):
        axes.axvline(float(np.clip(np.median(errors), bins[0], bins[-1])), color=BEST, lw=1.6, ls="--")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    dress(axes)
