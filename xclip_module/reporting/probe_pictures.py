"""The pictures of a linear probe: from metrics.json's "probe" to arrays that the reporting room draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xclip_module.reporting import probe_plots
from xclip_module.reporting import probing as probing
from xclip_module.reporting.picture import Picture, csv_text, svg_bytes
from xclip_module.reporting.probe_plots import Epochs, Learning, Sweep
from xclip_module.reporting.probing import Spread
from xclip_module.reporting.tables import number
from xclip_module.reporting.training import series


def probe_pictures(metrics: Mapping[str, Any]) -> list[Picture]:
    """Sweep over λ, learning curve and temporal head, those of them that there are; none for other runs."""
    probe = metrics.get("probe")
    if not probe:
        return []
    found = [_sweep_picture(probe), _learning_picture(metrics), _temporal_picture(probe)]
    return [picture for picture in found if picture]


def _sweep_picture(probe: Mapping[str, Any]) -> Picture | None:
    # A given λ is a single point, no curve.
    heads, monitor = [head for head in probe["heads"] if len(head["sweep"]) > 1], probe["monitor"]
    if not heads:
        return None
    trained = f"{probing.count_text(probe['windows'])} windows of {probing.videos_text(probe['videos'])}"
    title = f"{monitor} against λ, chosen on {probe['chosen_on']}; trained on {trained}"
    figure = probe_plots.sweep_figure([_sweep(head, monitor) for head in heads], monitor=monitor, title=title)
    names = ("lambda", "train", "val", "steps")
    rows = (
        [head["kind"], *(row[name] for name in names), int(row["lambda"] == head["lambda"])]
        for head in heads
        for row in head["sweep"]
    )
    table = csv_text(["head", "lambda", f"train {monitor}", f"val {monitor}", "steps", "chosen"], rows)
    return Picture(probing.SWEEP, title, svg_bytes(figure), {f"{probing.SWEEP}.csv": table})


def _sweep(head: Mapping[str, Any], monitor: str) -> Sweep:
    rows = sorted(head["sweep"], key=lambda row: row["lambda"])
    best = "" if head["best"] is None else f", val {monitor} {number(head['best'])} %"
    return Sweep(
        name=f"{head['kind']}: {head['form']}",
        note=f"λ = {probing.strength_text(head['lambda'])}{best}",
        strengths=series(rows, "lambda"),
        train=series(rows, "train"),
        val=series(rows, "val"),
        chosen=_float(head["lambda"]),
    )


def _learning_picture(metrics: Mapping[str, Any]) -> Picture | None:
    few_shot = metrics["probe"]["few_shot"]
    found = probing.spreads(few_shot) if few_shot else []
    if not found:
        return None
    # A metric that no draw has would be an empty panel.
    known = {one.metric for one in found if one.known}
    splits = list(dict.fromkeys(one.split for one in found))
    panels = {
        column.key: {split: _learning(metrics, found, split, column.key) for split in splits}
        for column in probing.METRICS
        if column.key in known
    }
    if not panels:
        return None
    sizes = (
        f"{split}: {probing.videos_text(one['videos'])}" for split, one in metrics["splits"].items() if split in splits
    )
    title = f"The probe against the number of training videos; {', '.join(sizes)}"
    figure = probe_plots.learning_figure(panels, title=title)
    name = probing.LEARNING
    levels = (
        [split, metric, *(None if np.isnan(level) else level for level in (line.chance, line.prior))]
        for metric, lines in panels.items()
        for split, line in lines.items()
    )
    numbers = {
        f"{name}.csv": _draws_csv(few_shot["rows"]),
        f"{name}.means.csv": csv_text(
            ["training videos", "split", "metric", "mean", "lowest draw", "highest draw", "known draws", "draws"], found
        ),
        f"{name}.levels.csv": csv_text(["split", "metric", "chance", "time prior"], levels),
    }
    return Picture(name, title, svg_bytes(figure), numbers)


def _learning(metrics: Mapping[str, Any], found: Sequence[Spread], split: str, metric: str) -> Learning:
    few_shot = metrics["probe"]["few_shot"]
    own = [one for one in found if (one.split, one.metric) == (split, metric)]
    rows = few_shot["rows"]
    return Learning(
        draws=series(rows, "shots"),
        values=series([row["splits"].get(split, {}) for row in rows], metric),
        shots=np.array([one.shots for one in own], float),
        mean=np.array([_float(one.mean) for one in own]),
        low=np.array([_float(one.low) for one in own]),
        high=np.array([_float(one.high) for one in own]),
        chance=_float(probing.chance(few_shot, split, metric)),
        prior=_float(probing.prior_of(metrics, split, metric)),
    )


def _draws_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per draw and split."""
    keys = [*(column.key for column in probing.METRICS), "prevalence"]
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["lambda"]))
    lines = (
        [
            row["shots"],
            row["draw"],
            split,
            *map(own.get, keys),
            *map(row["lambda"].get, kinds),
            "; ".join(row["videos"]),
        ]
        for row in rows
        for split, own in row["splits"].items()
    )
    head = ["training videos", "draw", "split", *keys, *(f"lambda {kind}" for kind in kinds), "videos"]
    return csv_text(head, lines)


def _temporal_picture(probe: Mapping[str, Any]) -> Picture | None:
    found = probe["temporal"]
    if not found or not found["curve"]:
        return None
    rows, monitor = found["curve"], probe["monitor"]
    kept = "" if found["best_epoch"] is None else f"; epoch {found['best_epoch']} was kept"
    title = f"Training of the temporal head, {len(rows)} epochs{kept}"
    course = Epochs(series(rows, "epoch"), series(rows, "loss"), series(rows, "val"), _float(found["best_epoch"]))
    figure = probe_plots.temporal_figure(course, monitor=monitor, title=title)
    lines = ([row["epoch"], row["loss"], row["val"]] for row in rows)
    table = csv_text(["epoch", "loss", f"val {monitor}"], lines)
    return Picture(probing.TEMPORAL, title, svg_bytes(figure), {f"{probing.TEMPORAL}.csv": table})


def _float(value: float | None) -> float:
    return np.nan if value is None else value
