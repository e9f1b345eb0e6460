"""The picture of how a fine-tuned run's weights came to be: from metrics.json's "training" to its chart."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from xclip_module.reporting import training_facts
from xclip_module.reporting.chart import Chart, chart_of, csv_text
from xclip_module.reporting.tables import Column
from xclip_module.reporting.training_plots import Course, training_figure

_LOGGED = ("step", "loss", "floor", "lr", "grad_norm")
# A running mean covers two lines in so many: a fortieth of the picture, one line where there are few.
_LINES_PER_MEAN = 80


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
    figure = training_figure(course, title=title, checked=checked)
    return chart_of(training_facts.PICTURE, title, figure, _numbers(training, course))


def _numbers(training: Mapping[str, Any], course: Course) -> dict[str, str]:
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


def _course(training: Mapping[str, Any]) -> Course:
    """The arrays of metrics.json's "training"; of retrieval's two directions text → video."""
    rows, checks = training["curve"], training["validations"]
    loss = training_facts.series(rows, "loss")
    # Odd, so that a mean lies on the line in its middle.
    window = 2 * (len(rows) // _LINES_PER_MEAN) + 1
    drawn = {key: column for key, column in _measured(training).items() if not key.startswith("v2t/")}
    return Course(
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
    columns = {column.key: column for column in training_facts.columns(training)}
    checks = training["validations"]
    return {key: columns[key] for key in columns if np.isfinite(training_facts.series(checks, key)).any()}
