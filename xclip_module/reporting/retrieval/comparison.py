"""Several retrieval runs side by side: their numbers, and the differences from the first run.

No intervals: a retrieval run keeps no bootstrap.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from xclip_module.reporting import tables, training
from xclip_module.reporting.picture import csv_text
from xclip_module.reporting.run_files import RunFiles
from xclip_module.reporting.tables import Cell, Column, Row, Table

_HEAD = ("run", "split", "metric", "value", "difference")
_KNOWN = {column.key: column for column in training.RETRIEVAL}


def sections(runs: Sequence[RunFiles]) -> list[tuple[str, list[Table]]]:
    """Per split a row per run, Δ below each number of the others."""
    return [(split, [_table(runs, split)]) for split in runs[0].metrics["splits"]]


def retrieval_csv(runs: Sequence[RunFiles]) -> str:
    """One line per run, split and metric; R@K as fractions, MdR and MnR from 1; no difference for the first run."""
    rows: list[list[Any]] = []
    for split in runs[0].metrics["splits"]:
        for run in runs:
            for key in _KNOWN:
                value, difference = _value(run, split, key), _difference(runs[0], run, split, key)
                rows.append([run.name, split, key, value, None if run is runs[0] else difference])
    return csv_text(_HEAD, rows)


def _table(runs: Sequence[RunFiles], split: str) -> Table:
    first = runs[0]
    rows = [
        Row(
            run.name,
            str(run.metrics["protocol"].get("weights", "")),
            [_cell(first, run, split, column) for column in _KNOWN.values()],
            "" if run is not first else "track",
        )
        for run in runs
    ]
    result = first.metrics["splits"][split]
    caption = f"{result['texts']} texts, {result['videos']} videos. t2v: text → video; v2t: video → text"
    return Table(caption, "run", tuple(_KNOWN.values()), rows)


def _cell(first: RunFiles, run: RunFiles, split: str, column: Column) -> Cell:
    difference = _difference(first, run, split, column.key)
    below: tuple[str, ...] = ()
    if run is not first and difference is not None:
        shown = difference * (1 if column.kind == "rank" else 100)
        below = (f"Δ {shown:+.1f}".replace("-", "−"),)
    return Cell(tables.number(_value(run, split, column.key), column.kind), below)


def _difference(first: RunFiles, run: RunFiles, split: str, key: str) -> float | None:
    own, other = _value(run, split, key), _value(first, split, key)
    return None if own is None or other is None else own - other


def _value(run: RunFiles, split: str, key: str) -> float | None:
    metrics: Mapping[str, float | None] = run.metrics["splits"][split]["metrics"]
    return metrics.get(key)
