"""Several retrieval runs side by side: their numbers, and the differences from the first run.

No intervals: a retrieval run keeps no bootstrap.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xclip_module.reporting import tables
from xclip_module.reporting.chart import csv_text
from xclip_module.reporting.comparison import page_head
from xclip_module.reporting.run_files import Comparability, RunFiles, shared_facts
from xclip_module.reporting.tables import Cell, Column, Row, Table
from xclip_module.reporting.template import render
from xclip_module.reporting.training_facts import RETRIEVAL

_HEAD = ("run", "split", "metric", "value", "difference")
_PAGE = Path(__file__).parent / "templates" / "retrieval_comparison.html"


def retrieval_page(runs: Sequence[RunFiles]) -> str:
    """The page: who was compared, and per split a row per run, Δ below each number of the others."""
    sections = [(split, [_table(runs, split)]) for split in runs[0].metrics["splits"]]
    return render(_PAGE, **page_head(runs), sections=sections, gaps=[])


def retrieval_csv(runs: Sequence[RunFiles]) -> str:
    """One line per run, split and metric; R@K as fractions, MdR and MnR from 1; no difference for the first run."""
    rows: list[list[Any]] = []
    for split in runs[0].metrics["splits"]:
        for run in runs:
            for column in RETRIEVAL:
                key = column.key
                value, difference = _value(run, split, key), _difference(runs[0], run, split, key)
                rows.append([run.name, split, key, value, None if run is runs[0] else difference])
    return csv_text(_HEAD, rows)


def _table(runs: Sequence[RunFiles], split: str) -> Table:
    first = runs[0]
    rows = [
        Row(
            run.name,
            str(run.metrics["protocol"].get("weights", "")),
            [_cell(first, run, split, column) for column in RETRIEVAL],
            "" if run is not first else "track",
        )
        for run in runs
    ]
    result = first.metrics["splits"][split]
    caption = f"{result['texts']} texts, {result['videos']} videos. t2v: text → video; v2t: video → text"
    return Table(caption, "run", RETRIEVAL, rows)


def _cell(first: RunFiles, run: RunFiles, split: str, column: Column) -> Cell:
    difference = _difference(first, run, split, column.key)
    below: tuple[str, ...] = ()
    if run is not first and difference is not None:
        shown = difference * (1 if column.kind == "rank" else 100)
        below = (f"Δ {shown:+.1f}".replace("-", "−"),)
    return Cell(tables.number(_value(run, split, column.key), column.kind), below)


def _difference(first: RunFiles, run: RunFiles, split: str, key: str) -> float | None:
    value, of_first = _value(run, split, key), _value(first, split, key)
    return None if value is None or of_first is None else value - of_first


def _value(run: RunFiles, split: str, key: str) -> float | None:
    metrics: Mapping[str, float | None] = run.metrics["splits"][split]["metrics"]
    return metrics.get(key)


def _compared_facts(first: RunFiles, second: RunFiles) -> dict[str, tuple[Any, Any]]:
    """What must be equal; the videos left out before the numbers that follow from them."""
    skipped = (sorted(first.metrics["skipped"]), sorted(second.metrics["skipped"]))
    facts = {**shared_facts(first, second, {}), "videos left out": skipped}
    facts |= shared_facts(first, second, {"texts": "texts", "videos": "videos"})
    # Numbers under other rules are other numbers: see `evaluation.retrieval.ranks`.
    for rule in ("v2t", "ties"):
        facts[f"rules ({rule})"] = first.metrics["protocol"].get(rule), second.metrics["protocol"].get(rule)
    return facts


RULES = Comparability(
    keys=frozenset({"protocol", "untrained", "skipped"}),
    split_keys=frozenset({"texts", "videos", "of_texts", "of_videos", "metrics"}),
    has_replicates=False,
    facts=_compared_facts,
    attempt="runs with the same --data keys and the same video files",
)
