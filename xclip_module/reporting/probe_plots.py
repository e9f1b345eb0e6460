"""Figures of a linear probe: the sweep over λ, the learning curve, the training of the temporal head.

Arrays in, `Figure` out. Fractions come in, percent is drawn; NaN where a number is unknown.

K values of λ, N draws of training videos, S numbers of training videos, E epochs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from xclip_module.reporting.chart import label_lines
from xclip_module.reporting.figures import FEW_POINTS, FONT, blank, dress, name_lines
from xclip_module.reporting.palette import BEST, CHANCE, LINES, TRUTH

# By name, so that a missing split moves no other's colour.
_SPLITS = {"val": LINES["+query-set"], "test": LINES["similarity-only"]}
_PRIOR, _CHANCE = "--", (0, (1, 1.5))
# Numbers of videos nearer than this share of the axis get one number at their ticks.
_TICK_ROOM = 0.07


class Sweep(NamedTuple):
    """One head's sweep: strengths [K] ascending, train and val [K]; chosen: the λ that was taken, NaN if unknown."""

    name: str
    note: str
    strengths: np.ndarray
    train: np.ndarray
    val: np.ndarray
    chosen: float


class Learning(NamedTuple):
    """One metric of one split against the number of training videos.

    draws, values: [N] number of videos and value of each draw.  shots, mean, low, high: [S] over the draws, ascending.
    chance, prior: level of scores without knowledge and of the time prior.
    """

    draws: np.ndarray
    values: np.ndarray
    shots: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chance: float
    prior: float


class Epochs(NamedTuple):
    """The training of the temporal head: epochs, loss, val [E]; best: the epoch that was kept, NaN if unknown."""

    epochs: np.ndarray
    loss: np.ndarray
    val: np.ndarray
    best: float


def sweep_figure(panels: Sequence[Sweep], *, monitor: str, title: str) -> Figure:
    """The watched metric of train (dashed) and val (solid) against λ, a panel per head, the chosen λ marked."""
    height = 3.6
    figure = blank(height)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    figure.subplots_adjust(left=0.075, right=0.985, top=0.76, bottom=0.25, wspace=0.14)
    for axes, panel in zip(grid, panels, strict=True):
        _draw_sweep(axes, panel)
    grid[0].set_ylabel(f"{monitor} (%)", fontsize=FONT)
    figure.text(0.01, 0.98, title, fontsize=11, va="top")
    name_lines(figure, grid)
    return figure


def learning_figure(panels: Mapping[str, Mapping[str, Learning]], *, title: str) -> Figure:
    """Each metric against the number of training videos, a colour per split: every draw, their mean and range.

    panels: metric -> split -> its numbers. Dashed the time prior, dotted chance.
    """
    height = 3.9
    figure = blank(height)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    figure.subplots_adjust(left=0.065, right=0.985, top=0.82, bottom=0.27, wspace=0.16)
    splits = list(dict.fromkeys(split for lines in panels.values() for split in lines))
    for axes, (metric, lines) in zip(grid, panels.items(), strict=True):
        for split, line in lines.items():
            _draw_learning(axes, line, _SPLITS.get(split, "black"))
        _dress_shots(axes, list(lines.values()))
        axes.set_title(f"{metric} (%)", fontsize=10)
        _dress(axes)
    figure.text(0.01, 0.98, title, fontsize=11, va="top")
    handles: list[Artist] = [Line2D([], [], color=_SPLITS.get(split, "black"), lw=1.8) for split in splits]
    handles += [
        Line2D([], [], color=CHANCE, marker="o", ms=4, ls="", alpha=0.6),
        Patch(color=CHANCE, alpha=0.2, lw=0),
        Line2D([], [], color=CHANCE, lw=1.3, ls=_PRIOR),
        Line2D([], [], color=CHANCE, lw=1.3, ls=_CHANCE),
    ]
    names = [
        *(f"{split}, mean of the draws" for split in splits),
        "one draw",
        "range over draws",
        "time prior",
        "chance",
    ]
    figure.legend(handles, names, loc="lower center", ncols=len(names), frameon=False, fontsize=FONT)
    return figure


def temporal_figure(course: Epochs, *, monitor: str, title: str) -> Figure:
    """Training loss and, where it is known, the watched metric of val per epoch; the kept epoch marked in both."""
    height = 3.4
    has_val = bool(np.isfinite(course.val).any())
    figure = blank(height)
    grid = figure.subplots(1, 1 + has_val, squeeze=False)[0]
    figure.subplots_adjust(left=0.075, right=0.985, top=0.8, bottom=0.27, wspace=0.16)
    parts = [(course.loss, "training loss", "loss (nats)"), (100 * course.val, f"val {monitor}", f"{monitor} (%)")]
    for axes, (values, name, unit) in zip(grid, parts, strict=False):
        marker = "o" if len(course.epochs) < FEW_POINTS else ""
        axes.plot(course.epochs, values, color=TRUTH, lw=1.6, marker=marker, ms=3.5)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("epoch", fontsize=FONT)
        axes.set_ylabel(unit, fontsize=FONT)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
        _mark(axes, course.epochs, values, course.best, "kept epoch")
        _dress(axes)
    figure.text(0.01, 0.98, title, fontsize=11, va="top")
    name_lines(figure, grid)
    return figure


def _draw_sweep(axes: Axes, panel: Sweep) -> None:
    axes.plot(panel.strengths, 100 * panel.train, color=CHANCE, lw=1.4, ls="--", marker="o", ms=3, label="train")
    if np.isfinite(panel.val).any():
        axes.plot(panel.strengths, 100 * panel.val, color=TRUTH, lw=1.8, marker="o", ms=4, label="val")
    _mark(axes, panel.strengths, 100 * panel.val, panel.chosen, "chosen λ")
    axes.set_xscale("log")
    axes.set_title(f"{label_lines(panel.name, 60, lines=1)}\n{label_lines(panel.note, 60, lines=1)}", fontsize=10)
    axes.set_xlabel("λ, penalty of the squared weights", fontsize=FONT)
    _dress(axes)


def _draw_learning(axes: Axes, line: Learning, colour: str) -> None:
    for level, style in ((line.prior, _PRIOR), (line.chance, _CHANCE)):
        if math.isfinite(level):
            axes.axhline(100 * level, color=colour, lw=1.3, ls=style)
    axes.fill_between(line.shots, 100 * line.low, 100 * line.high, color=colour, alpha=0.2, lw=0)
    axes.plot(line.draws, 100 * line.values, color=colour, marker="o", ms=4, ls="", alpha=0.6, mew=0)
    axes.plot(line.shots, 100 * line.mean, color=colour, lw=1.8)


def _dress_shots(axes: Axes, lines: Sequence[Learning]) -> None:
    """A logarithmic axis of videos with a tick at each number that was tried."""
    shots = sorted({float(count) for line in lines for count in line.shots})
    axes.set_xscale("log", base=2)
    reach = max(shots[-1] / shots[0], 2) ** 0.06
    axes.set_xlim(shots[0] / reach, shots[-1] * reach)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(shots, _tick_labels(shots))
    axes.set_xlabel("training videos", fontsize=FONT)


def _tick_labels(shots: Sequence[float]) -> list[str]:
    """The numbers as text, from the largest down; those too near to the last one written stay empty."""
    width = math.log(shots[-1] / shots[0]) or 1.0
    labels: list[str] = []
    last = math.inf
    for count in reversed(shots):
        is_free = math.log(last / count) / width >= _TICK_ROOM
        labels.append(f"{count:g}" if is_free else "")
        last = count if is_free else last
    return labels[::-1]


def _mark(axes: Axes, x: np.ndarray, y: np.ndarray, chosen: float, name: str) -> None:
    """A line at what was chosen, and its point where the value there is known."""
    if not math.isfinite(chosen):
        return
    axes.axvline(chosen, color=BEST, lw=1.2, ls="-.", label=name)
    axes.plot(x[x == chosen], y[x == chosen], color=BEST, marker="D", ms=6, ls="", zorder=3)


def _dress(axes: Axes) -> None:
    dress(axes)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
