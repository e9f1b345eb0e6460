"""The picture of how a fine-tuned run's weights came to be: loss, learning rate, and what was validated on the way.

From metrics.json's "training" to a chart. N logged lines, K validations.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xclip_module.reporting import training_facts
from xclip_module.reporting.chart import Chart, chart_of, csv_text
from xclip_module.reporting.figures import BEST, FEW_POINTS, FONT, LOGGED, TRUTH, blank, dress, name_lines
from xclip_module.reporting.tables import Column

_LOGGED = ("step", "loss", "floor", "lr", "grad_norm")
# A running mean covers two lines in so many: a fortieth of the picture, one line where there are few.
_LINES_PER_MEAN = 80


class _Course(NamedTuple):
    """What happened during training; NaN where a number is unknown.

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
    ranks: frozenset[str]
    split: str


def training_picture(metrics: Mapping[str, Any]) -> Chart | None:
    """Loss, learning rate and validations of a fine-tuned run; None for other runs and where no step was logged."""
    training = metrics.get("training")
    if not training or not training["curve"]:
        return None
    course = _course(training)
    sizes = " of ".join(f"{training[name]} {name}" for name in ("texts", "clips", "videos") if name in training)
    title = f"Training: {sizes}, {training['steps']} steps; the weights of step {course.kept} were kept"
    split = training_facts.validated_on(training)
    result = metrics["splits"].get(split)
    checked = f"Validation on {split}" + (f", {result['videos']} videos" if result else "")
    checked += " (before training → kept step)"
    figure = _figure(course, title=title, checked=checked)
    return chart_of(training_facts.PICTURE, title, figure, _numbers(training, course))


def _numbers(training: Mapping[str, Any], course: _Course) -> dict[str, str]:
    """The logged lines, and where there are any the validations, which have columns of their own."""
    means = zip(
        *([None if np.isnan(x) else x for x in part.tolist()] for part in (course.mean, course.floor)), strict=True
    )
    lines = ([*map(row.get, _LOGGED), *both] for row, both in zip(training["curve"], means, strict=True))
    numbers = {"": csv_text([*_LOGGED, "loss, running mean", "floor, running mean"], lines)}
    if course.values:
        names = ["step", *_measured(training)]
        numbers[".validations"] = csv_text(names, ([*map(row.get, names)] for row in training["validations"]))
    return numbers


def _course(training: Mapping[str, Any]) -> _Course:
    """The arrays of metrics.json's "training"; of retrieval's two directions text → video."""
    rows, checks = training["curve"], training["validations"]
    loss = training_facts.series(rows, "loss")
    # Odd, so that a mean lies on the line in its middle.
    window = 2 * (len(rows) // _LINES_PER_MEAN) + 1
    drawn = {key: column for key, column in _measured(training).items() if not key.startswith("v2t/")}
    return _Course(
        steps=training_facts.series(rows, "step"),
        loss=loss,
        mean=training_facts.running_mean(loss, window),
        floor=training_facts.running_mean(training_facts.series(rows, "floor"), window),
        rate=training_facts.series(rows, "lr"),
        window=window,
        checked=training_facts.series(checks, "step"),
        values={key: training_facts.series(checks, key) for key in drawn},
        kept=training_facts.kept_step(training),
        monitor=training["monitor"] if training_facts.is_best(training) else "",
        ranks=frozenset(key for key, column in drawn.items() if column.kind == "rank"),
        split=training_facts.validated_on(training),
    )


def _measured(training: Mapping[str, Any]) -> dict[str, Column]:
    """Metrics of which some validation holds a value."""
    checks = training["validations"]
    return {
        column.key: column
        for column in training_facts.columns(training)
        if np.isfinite(training_facts.series(checks, column.key)).any()
    }


def _figure(course: _Course, *, title: str, checked: str) -> Figure:
    """Loss over its floor and the learning rate; below them each validated metric, on its own scale.

    The kept step is marked in all of them. checked: what stands above the validations, for example on how many videos.
    """
    height = 5.9 if course.values else 3.2
    figure = blank(height)
    below = 2.7 if course.values else 0.0
    room = {"left": 0.075, "right": 0.965, "top": 1 - 0.65 / height, "bottom": (below + 0.85) / height, "wspace": 0.18}
    grid = list(figure.subplots(1, 2, width_ratios=(1.75, 1), gridspec_kw=room))
    _draw_loss(grid[0], course)
    _draw_rate(grid[1], course)
    if course.values:
        room = {"left": 0.055, "right": 0.965, "top": 2.3 / height, "bottom": 0.85 / height, "wspace": 0.3}
        validated = figure.subplots(1, len(course.values), squeeze=False, gridspec_kw=room)[0]
        for axes, name in zip(validated, course.values, strict=True):
            _draw_validations(axes, course, name)
        figure.text(0.01, 2.85 / height, checked, fontsize=10, va="center")
        grid += validated.tolist()
    _mark_steps(grid, course)
    figure.text(0.01, 1 - 0.1 / height, title, fontsize=11, va="top")
    name_lines(figure, grid)
    return figure


def _draw_loss(axes: Axes, course: _Course) -> None:
    """A few steps far above all others leave the picture at its top: the thick line would be flat beside them."""
    if course.window > 1:
        axes.plot(course.steps, course.loss, color=LOGGED, lw=0.8, label="loss of a logged step")
        axes.plot(course.steps, course.mean, color=TRUTH, lw=1.8, label=f"mean of {course.window} logged steps")
    else:
        axes.plot(course.steps, course.loss, **_line_style(course.steps), label="loss of a logged step")
    if np.isfinite(course.floor).any():
        axes.plot(course.steps, course.floor, color="black", lw=1.4, ls="--", label="floor of the loss")
    drawn = np.concatenate([values[np.isfinite(values)] for values in (course.loss, course.floor)])
    if len(drawn):
        top = max(np.percentile(drawn, 99), *course.mean[np.isfinite(course.mean)])
        room = 0.06 * (top - drawn.min()) or 0.5
        axes.set_ylim(drawn.min() - room, top + room)
    axes.set_title("training loss", fontsize=10)
    axes.set_ylabel("loss (nats)", fontsize=FONT)


def _draw_rate(axes: Axes, course: _Course) -> None:
    axes.plot(course.steps, course.rate, **_line_style(course.steps), clip_on=False)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", scilimits=(0, 0), useMathText=True)
    axes.yaxis.get_offset_text().set_fontsize(FONT)
    axes.set_title("learning rate", fontsize=10)


def _draw_validations(axes: Axes, course: _Course, name: str) -> None:
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
    axes.set_title(f"{name}{unit}{chose}\n{' → '.join(numbers).replace('nan', '–')}", fontsize=FONT, linespacing=1.2)
    low, high = np.nanmin(values), np.nanmax(values)
    room = max(0.06 * (high - low), 1 - (high - low) / 2)
    axes.set_ylim(max(low - room, -0.06 * (high + room)), high + room)
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))


def _line_style(points: np.ndarray) -> dict[str, Any]:
    return {"color": TRUTH, "lw": 1.6, "marker": "o" if len(points) < FEW_POINTS else "", "ms": 3.5}


def _mark_steps(grid: Sequence[Axes], course: _Course) -> None:
    last = max([1, *course.steps, *course.checked])
    for index, axes in enumerate(grid):
        axes.axvline(course.kept, color=BEST, lw=1.2, ls="-.", label="kept step")
        axes.set_xlim(-0.02 * last, 1.02 * last)
        axes.xaxis.set_major_locator(MaxNLocator(3 if index else 8, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("step", fontsize=FONT)
        dress(axes)
