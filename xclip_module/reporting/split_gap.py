"""Validation beside test: both values and test - validation, per track with intervals and for the run's own track."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from xclip_module.reporting import tables, verdicts
from xclip_module.reporting.differences import Difference, independent
from xclip_module.reporting.tables import Cell, Column, Row, Table
from xclip_module.reporting.training_facts import METRICS, is_best

_KEYS = ("AUROC", "AUPRC", "R1@0.5", "mIoU", "det_mAP@0.5", "pair_mAP@0.5")
_COLUMNS = (*METRICS[:2], Column("lift", "chance 1", "lift", "ratio"), *METRICS[2:])
# The name of the row of differences.
GAP = "test − val"


def gap_table(metrics: Mapping[str, Any], replicates: Mapping[str, np.ndarray]) -> Table | None:
    """Validation beside test per track: both values and test - validation; None without both splits."""
    if not has_both(metrics):
        return None
    tracks = list(metrics["splits"]["val"]["tracks"])
    columns = [Column(f"{part} %", track, f"{track}/{part}") for track in tracks for part in ("val", "test", "gap")]
    heads = {column.key: column.head.removesuffix(" %") for column in tables.HEADLINE}
    rows = []
    for key in _KEYS:
        cells = []
        for track in tracks:
            val, test = _both(metrics, track, key)
            gap = split_gap(metrics, replicates, track, key)
            cells += [Cell(tables.number(val)), Cell(tables.number(test)), _gap_cell(gap)]
        rows.append(Row(heads[key], "", cells))
    caption = "gap = test − val in percent points with its 95 % interval; * = the interval excludes 0"
    return Table(caption, "metric", columns, rows)


def gap_words(metrics: Mapping[str, Any], replicates: Mapping[str, np.ndarray]) -> list[str]:
    """A sentence each on AUROC and det_mAP@0.5 of the run's track; none without both splits."""
    if not has_both(metrics):
        return []
    words, track = [], metrics["track"]
    for key in ("AUROC", "det_mAP@0.5"):
        val, test = _both(metrics, track, key)
        words.append(verdicts.of_gap(key, ("val", val), ("test", test), split_gap(metrics, replicates, track, key)))
    return words


def split_gap(metrics: Mapping[str, Any], replicates: Mapping[str, np.ndarray], track: str, key: str) -> Difference:
    """test - val of one metric of one track."""
    val, test = _both(metrics, track, key)
    empty = np.empty(0)
    draws = (replicates.get(f"val/{track}/{key}", empty), replicates.get(f"test/{track}/{key}", empty))
    return independent(val, test, draws)


def trained_gap_table(metrics: Mapping[str, Any], replicates: Mapping[str, np.ndarray]) -> Table | None:
    """The run's track as the rows val, test and test - val; None without training or without both splits."""
    values = trained_gap(metrics)
    if not values:
        return None
    rows = []
    for name in ("val", "test"):
        note = f"{metrics['splits'][name]['videos']} videos"
        rows.append(Row(name, note, tables.cells(values[name], _COLUMNS)))
    gaps = []
    for column in _COLUMNS:
        gap = split_gap(metrics, replicates, metrics["track"], column.key)
        lift = values[GAP][column.key]
        ratio = tables.UNDEFINED if lift is None else f"{lift:+.2f}".replace("-", "−")
        gaps.append(_gap_cell(gap) if column.kind == "percent" else Cell(ratio))
    rows.append(Row(GAP, "percent points; * = the 95 % interval excludes 0", gaps, "track"))
    return Table(f"Val → test, {metrics['track']}, the track of this run's answers", "split", _COLUMNS, rows)


def trained_gap(metrics: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """ "val", "test" and "test − val" -> metric -> fraction; empty without training or without both splits."""
    if not metrics.get("training") or not has_both(metrics):
        return {}
    rows: dict[str, dict[str, float | None]] = {"val": {}, "test": {}, GAP: {}}
    for column in _COLUMNS:
        val, test = _both(metrics, metrics["track"], column.key)
        rows["val"][column.key], rows["test"][column.key] = val, test
        rows[GAP][column.key] = None if val is None or test is None else test - val
    return rows


def what_val_chose(training: Mapping[str, Any]) -> str:
    """One sentence on what the two columns of a trained run are worth.

    >>> what_val_chose({"chosen": "last (no val split)"})
    'Val chose no checkpoint: the last one was kept. Test was looked at once, after training.'
    """
    if not is_best(training):
        return "Val chose no checkpoint: the last one was kept. Test was looked at once, after training."
    count = len(training["validations"])
    return (
        f"Val chose the checkpoint (the best {training['monitor']} of {count} validations), so that its numbers are "
        "optimistic; test was looked at once, with the chosen weights."
    )


def has_both(metrics: Mapping[str, Any]) -> bool:
    """Whether val and test were both scored and hold something to be found."""
    splits = metrics["splits"]
    return all(name in splits and tables.has_truth(splits[name]) for name in ("val", "test"))


def _both(metrics: Mapping[str, Any], track: str, key: str) -> list[float | None]:
    return [metrics["splits"][split]["tracks"][track]["macro"][key] for split in ("val", "test")]


def _gap_cell(gap: Difference) -> Cell:
    """The difference, * where its interval excludes 0, and the interval below it."""
    value, _, bounds = verdicts.signed(gap).partition(" ")
    return Cell(value + " *" * gap.excludes_zero, (bounds,) if bounds else ())
