"""Line pictures of a run: PR and ROC per query, mAP against tIoU, errors of the boundaries, the course of training.

Arrays in, `Figure` out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xclip_module.reporting.palette import BEST, CHANCE, LINES, LOGGED, TRUTH
from xclip_module.reporting.picture import label_lines

_WIDTH, _FONT, _COLUMNS = 9.6, 9, 4
_LABEL_WIDTH = 25
# So few points of a line are marked one by one.
_FEW = 40


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


class Course(NamedTuple):
    """What happened during training, N logged lines and K validations; NaN where a number is unknown.

    steps, loss, rate: [N], rate is that of the optimizer.  mean, floor: [N] running means over `window` lines, of the
    loss and of the least loss that those batches allow.  checked: [K] steps.  values: metric -> [K] fractions.
    kept: the step whose weights were kept.  monitor: the metric that chose it, "" where none did.
    ranks: those of the values that are no fractions but ranks, first = 1.  split: what was validated on.
    """

    steps: np.ndarray
    loss: np.ndarray
    mean: np.ndarray
    floor: np.ndarray
    rate: np.ndarray
    window: int
    checked: np.ndarray
    values: Mapping[str, np.ndarray]
    kept: int
    monitor: str
    ranks: frozenset[str] = frozenset()
    split: str = "val"


def curve_grid(panels: Sequence[Panel], *, labels: tuple[str, str], title: str, is_steps: bool) -> Figure:
    """A small plot per query with its chance line dashed; labels: of the x and the y axis."""
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    height = 2.35 * rows + 0.75
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
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
    figure.text(0.01, 1 - 0.1 / height, title, fontsize=11, va="top")
    figure.text(0.53, 0.12 / height, labels[0], fontsize=_FONT, ha="center", va="bottom")
    figure.text(0.012, 0.5, labels[1], fontsize=_FONT, rotation=90, va="center", ha="left")
    return figure


def map_figure(panels: Mapping[str, Sequence[Line]], limits: Sequence[float], *, title: str) -> Figure:
    """det_mAP in percent against the tIoU that counts as found, a panel per split on one scale.

    panels: "test, 40 videos" -> its lines, each over `limits`; those of controls dashed.
    """
    height = 3.5
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    figure.subplots_adjust(left=0.075, right=0.985, top=0.82, bottom=0.26, wspace=0.06)
    for axes, (name, lines) in zip(grid, panels.items(), strict=True):
        for line in lines:
            _draw_line(axes, line, limits)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("tIoU that counts as found", fontsize=_FONT)
        axes.set_ylim(bottom=0)
        _dress(axes)
    grid[0].set_ylabel("det_mAP (%)", fontsize=_FONT)
    figure.text(0.01, 0.98, title, fontsize=11, va="top")
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncols=5, frameon=False, fontsize=_FONT)
    return figure


def boundary_figure(panels: Mapping[str, np.ndarray], totals: Mapping[str, int], *, title: str) -> Figure:
    """Histograms of start and end errors, a row per split.

    panels: split -> [N, 2] found minus true start and end in seconds.  totals: split -> pairs with truth.
    The outermost bars hold everything beyond them.
    """
    height = 2.3 * len(panels) + 0.6
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    grid = figure.subplots(len(panels), 2, squeeze=False, sharex=True, sharey="row")
    figure.subplots_adjust(
        left=0.075, right=0.985, top=1 - 0.75 / height, bottom=0.55 / height, wspace=0.08, hspace=0.42
    )
    every = np.concatenate([np.abs(errors).ravel() for errors in panels.values()])
    reach = float(np.percentile(every, 95)) if len(every) else 1.0
    bins = np.linspace(-reach or -1.0, reach or 1.0, 32)
    for axes_row, (split, errors) in zip(grid, panels.items(), strict=True):
        for edge, axes in enumerate(axes_row):
            _draw_errors(axes, errors[:, edge], bins)
            middle = f", median {np.median(errors[:, edge]):+.1f} s".replace("-", "−") if len(errors) else ""
            name = ("start", "end")[edge]
            axes.set_title(f"{split}, {name}: n={len(errors)} of {totals[split]} pairs{middle}", fontsize=10)
        axes_row[0].set_ylabel("answers", fontsize=_FONT)
    for axes in grid[-1]:
        axes.set_xlabel("found − true (s); right of 0 = too late", fontsize=_FONT)
    figure.text(0.01, 1 - 0.1 / height, title, fontsize=11, va="top")
    return figure


def training_figure(course: Course, *, title: str, checked: str) -> Figure:
    """Loss over its floor and the learning rate; below them each validated metric, on its own scale.

    The kept step is marked in all of them. checked: what stands above the validations, for example on how many videos.
    """
    height = 5.9 if course.values else 3.2
    figure = Figure(figsize=(_WIDTH, height), facecolor="white")
    below = 2.7 if course.values else 0.0
    room = {"left": 0.075, "right": 0.965, "top": 1 - 0.65 / height, "bottom": (below + 0.85) / height, "wspace": 0.18}
    grid = list(figure.subplots(1, 2, width_ratios=(1.75, 1), gridspec_kw=room))
    _draw_loss(grid[0], course)
    _draw_rate(grid[1], course)
    if course.values:
        room = {"left": 0.055, "right": 0.965, "top": 2.3 / height, "bottom": 0.85 / height, "wspace": 0.3}
        own = figure.subplots(1, len(course.values), squeeze=False, gridspec_kw=room)[0]
        for axes, name in zip(own, course.values, strict=True):
            _draw_validations(axes, course, name)
        figure.text(0.01, 2.85 / height, checked, fontsize=10, va="center")
        grid += own.tolist()
    _mark_steps(grid, course)
    figure.text(0.01, 1 - 0.1 / height, title, fontsize=11, va="top")
    named: dict[str, Artist] = {}
    for axes in grid:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            named.setdefault(name, handle)
    figure.legend(named.values(), named, loc="lower center", ncols=len(named), frameon=False, fontsize=_FONT)
    return figure


def thinned(x: np.ndarray, y: np.ndarray, *, most: int = 200) -> np.ndarray:
    """Indices of points that draw the same line within 1/most of the plot's width and height: ends and turns stay."""
    place = np.round(np.stack([x, y]) * most)
    keep = np.ones(len(x), bool)
    keep[1:] = (np.diff(place, axis=1) != 0).any(axis=0)
    keep[-1] = True
    return np.flatnonzero(keep)


def _draw_panel(axes: Axes, panel: Panel, *, is_steps: bool, is_left: bool, is_lowest: bool) -> None:
    axes.plot((0, 1), panel.chance, color=CHANCE, lw=1, ls="--")
    axes.plot(panel.x, panel.y, color="black", lw=2.2, drawstyle="steps-post" if is_steps else "default")
    axes.plot(panel.x, panel.y, color=panel.colour, lw=1.4, drawstyle="steps-post" if is_steps else "default")
    axes.set_title(f"{label_lines(panel.name, _LABEL_WIDTH)}\n{panel.note}", fontsize=_FONT, linespacing=1.15, pad=7)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), yticks=(0, 0.5, 1))
    axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    axes.tick_params(labelbottom=is_lowest, labelleft=is_left)
    _dress(axes)


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
    _dress(axes)


def _draw_loss(axes: Axes, course: Course) -> None:
    """A few steps far above all others leave the picture at its top: the thick line would be flat beside them."""
    if course.window > 1:
        axes.plot(course.steps, course.loss, color=LOGGED, lw=0.8, label="loss of a logged step")
        axes.plot(course.steps, course.mean, color=TRUTH, lw=1.8, label=f"mean of {course.window} logged steps")
    else:
        axes.plot(course.steps, course.loss, **_line_style(course.steps), label="loss of a logged step")
    if np.isfinite(course.floor).any():
        axes.plot(course.steps, course.floor, color="black", lw=1.4, ls="--", label="floor of the loss")
    known = np.concatenate([values[np.isfinite(values)] for values in (course.loss, course.floor)])
    if len(known):
        top = max(np.percentile(known, 99), *course.mean[np.isfinite(course.mean)])
        room = 0.06 * (top - known.min()) or 0.5
        axes.set_ylim(known.min() - room, top + room)
    axes.set_title("training loss", fontsize=10)
    axes.set_ylabel("loss (nats)", fontsize=_FONT)


def _draw_rate(axes: Axes, course: Course) -> None:
    axes.plot(course.steps, course.rate, **_line_style(course.steps), clip_on=False)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", scilimits=(0, 0), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(_FONT)
    axes.set_title("learning rate", fontsize=10)


def _draw_validations(axes: Axes, course: Course, name: str) -> None:
    """A metric's own scale, but never less than two percent points or ranks: noise would fill the picture."""
    unit = ", rank" if name in course.ranks else " (%)"
    values = course.values[name] * (1 if name in course.ranks else 100)
    axes.plot(course.checked, values, **_line_style(course.checked), label=course.split)
    numbers = []
    for value in values[course.checked == 0][:1]:
        axes.axhline(value, color="black", lw=1.2, ls=":", label=f"{course.split} before training")
        numbers.append(f"{value:.1f}")
    for value in values[course.checked == course.kept][:1]:
        axes.plot([course.kept], [value], color=BEST, marker="D", ms=6, ls="", clip_on=False, zorder=3)
        numbers += [f"{value:.1f}"] if course.kept else []
    chose = ", chose the step" if name == course.monitor else ""
    axes.set_title(f"{name}{unit}{chose}\n{' → '.join(numbers).replace('nan', '–')}", fontsize=_FONT, linespacing=1.2)
    low, high = np.nanmin(values), np.nanmax(values)
    room = max(0.06 * (high - low), 1 - (high - low) / 2)
    axes.set_ylim(max(low - room, -0.06 * (high + room)), high + room)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))


def _line_style(points: np.ndarray) -> dict[str, Any]:
    return {"color": TRUTH, "lw": 1.6, "marker": "o" if len(points) < _FEW else "", "ms": 3.5}


def _mark_steps(grid: Sequence[Axes], course: Course) -> None:
    last = max([1, *course.steps, *course.checked])
    for place, axes in enumerate(grid):
        axes.axvline(course.kept, color=BEST, lw=1.2, ls="-.", label="kept step")
        axes.set_xlim(-0.02 * last, 1.02 * last)
        axes.xaxis.set_major_locator(MaxNLocator(3 if place else 8, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("step", fontsize=_FONT)
        _dress(axes)


def _dress(axes: Axes) -> None:
    axes.tick_params(labelsize=_FONT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
