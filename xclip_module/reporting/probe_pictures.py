"""The pictures of a linear probe: from metrics.json's "probe" to charts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xclip_module.reporting import few_shot, probe_facts, probe_plots
from xclip_module.reporting.chart import Chart, chart_of, csv_text
from xclip_module.reporting.few_shot import Spread, videos_text
from xclip_module.reporting.probe_plots import Epochs, Learning, Sweep
from xclip_module.reporting.tables import count_text, number
from xclip_module.reporting.training_facts import series


def probe_pictures(metrics: Mapping[str, Any]) -> list[Chart]:
    """Sweep over λ, learning curve and temporal head, those of them that there are; none for other runs."""
    probe = metrics.get("probe")
    if not probe:
        return []
    pictures = [_sweep_picture(probe), _learning_picture(metrics), _temporal_picture(probe)]
    return [picture for picture in pictures if picture]


def _sweep_picture(probe: Mapping[str, Any]) -> Chart | None:
    # A given λ is a single point, no curve.
    heads, monitor = [head for head in probe["heads"] if len(head["sweep"]) > 1], probe["monitor"]
    if not heads:
        return None
    trained = f"{count_text(probe['windows'])} windows of {videos_text(probe['videos'])}"
    title = f"{monitor} against λ, chosen on {probe['chosen_on']}; trained on {trained}"
    figure = probe_plots.sweep_figure([_sweep(head, monitor) for head in heads], monitor=monitor, title=title)
    names = ("lambda", "train", "val", "steps")
    rows = (
        [head["kind"], *(row[name] for name in names), int(row["lambda"] == head["lambda"])]
        for head in heads
        for row in head["sweep"]
    )
    table = csv_text(["head", "lambda", f"train {monitor}", f"val {monitor}", "steps", "chosen"], rows)
    return chart_of(probe_facts.SWEEP, title, figure, {"": table})


def _sweep(head: Mapping[str, Any], monitor: str) -> Sweep:
    rows = sorted(head["sweep"], key=lambda row: row["lambda"])
    best = "" if head["best"] is None else f", val {monitor} {number(head['best'])} %"
    return Sweep(
        name=f"{head['kind']}: {head['form']}",
        note=f"λ = {probe_facts.strength_text(head['lambda'])}{best}",
        strengths=series(rows, "lambda"),
        train=series(rows, "train"),
        val=series(rows, "val"),
        chosen=_float(head["lambda"]),
    )


def _learning_picture(metrics: Mapping[str, Any]) -> Chart | None:
    draws = metrics["probe"]["few_shot"]
    spreads = few_shot.spreads(draws) if draws else []
    # A metric that no draw has would be an empty panel.
    measured = {spread.metric for spread in spreads if spread.known}
    splits = list(dict.fromkeys(spread.split for spread in spreads))
    panels = {
        column.key: {split: _learning(metrics, spreads, split, column.key) for split in splits}
        for column in few_shot.METRICS
        if column.key in measured
    }
    if not panels:
        return None
    sizes = (f"{split}: {videos_text(row['videos'])}" for split, row in metrics["splits"].items() if split in splits)
    title = f"The probe against the number of training videos; {', '.join(sizes)}"
    levels = (
        [split, metric, *(None if np.isnan(level) else level for level in (line.chance, line.prior))]
        for metric, lines in panels.items()
        for split, line in lines.items()
    )
    numbers = {
        "": _draws_csv(draws["rows"]),
        ".means": csv_text(
            ["training videos", "split", "metric", "mean", "lowest draw", "highest draw", "known draws", "draws"],
            spreads,
        ),
        ".levels": csv_text(["split", "metric", "chance", "time prior"], levels),
    }
    return chart_of(probe_facts.LEARNING, title, probe_plots.learning_figure(panels, title=title), numbers)


def _learning(metrics: Mapping[str, Any], spreads: Sequence[Spread], split: str, metric: str) -> Learning:
    draws = metrics["probe"]["few_shot"]
    rows = draws["rows"]
    line = [spread for spread in spreads if (spread.split, spread.metric) == (split, metric)]
    return Learning(
        draws=series(rows, "shots"),
        values=series([row["splits"].get(split, {}) for row in rows], metric),
        shots=np.array([spread.shots for spread in line], float),
        mean=np.array([_float(spread.mean) for spread in line]),
        low=np.array([_float(spread.low) for spread in line]),
        high=np.array([_float(spread.high) for spread in line]),
        chance=_float(few_shot.chance(draws, split, metric)),
        prior=_float(few_shot.prior_of(metrics, split, metric)),
    )


def _draws_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per draw and split."""
    keys = [*(column.key for column in few_shot.METRICS), "prevalence"]
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["lambda"]))
    lines = (
        [
            row["shots"],
            row["draw"],
            split,
            *map(values.get, keys),
            *map(row["lambda"].get, kinds),
            "; ".join(row["videos"]),
        ]
        for row in rows
        for split, values in row["splits"].items()
    )
    head = ["training videos", "draw", "split", *keys, *(f"lambda {kind}" for kind in kinds), "videos"]
    return csv_text(head, lines)


def _temporal_picture(probe: Mapping[str, Any]) -> Chart | None:
    temporal = probe["temporal"]
    if not temporal or not temporal["curve"]:
        return None
    rows, monitor = temporal["curve"], probe["monitor"]
    kept = "" if temporal["best_epoch"] is None else f"; epoch {temporal['best_epoch']} was kept"
    title = f"Training of the temporal head, {len(rows)} epochs{kept}"
    course = Epochs(series(rows, "epoch"), series(rows, "loss"), series(rows, "val"), _float(temporal["best_epoch"]))
    figure = probe_plots.temporal_figure(course, monitor=monitor, title=title)
    lines = ([row["epoch"], row["loss"], row["val"]] for row in rows)
    table = csv_text(["epoch", "loss", f"val {monitor}"], lines)
    return chart_of(probe_facts.EPOCHS, title, figure, {"": table})


def _float(value: float | None) -> float:
    return np.nan if value is None else value
