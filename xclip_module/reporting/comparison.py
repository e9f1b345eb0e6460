"""Several runs on one page: their numbers, and the paired differences from the first run.

Only runs of one track are ever compared with each other.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xclip_module.errors import DataError, UserError
from xclip_module.reporting import probe_facts, tables, training_facts, verdicts
from xclip_module.reporting.chart import csv_text
from xclip_module.reporting.differences import Difference, bounds, paired
from xclip_module.reporting.run_files import RETRIEVAL, RunFiles, read_runs, retrieval_comparison
from xclip_module.reporting.split_gap import gap_table, split_gap
from xclip_module.reporting.tables import Cell, Column, Row, Table
from xclip_module.reporting.template import TEMPLATES, render
from xclip_module.run import storage

_METRICS = ("AUROC", "AUPRC", "R1@0.5", "mIoU", "det_mAP@0.3", "det_mAP@0.5", "det_mAP@0.5:0.95", "pair_mAP@0.5")
_HEAD = ("run", "track", "split", "metric", "value", "low", "high")
_TRAINING, _PROBE = "training: ", "probe: "
_DIFFERENCE_HEAD = ("difference", "difference_low", "difference_high", "excludes_zero")


class Compared(NamedTuple):
    """One metric of one run on one split: its value, its own 95 % interval, and the difference from the first run."""

    run: str
    track: str
    split: str
    metric: str
    value: float | None
    bounds: tuple[float, float] | None
    difference: Difference | None


def write_comparison(folders: Sequence[Path], output: Path) -> Path:
    """Writes comparison.html and comparison.csv into `output`; the path of the page.

    The first folder is what the others are compared with. Raises DataError for folders that are no runs or runs that
    cannot be compared.
    """
    try:
        runs = read_runs(folders)
        texts = _texts(runs)
    except UserError:
        raise
    # Files that someone has edited may hold anything anywhere.
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        names = ", ".join(map(str, folders))
        reason = f"{type(error).__name__} {error}"[:200]
        raise DataError("damaged metrics.json or bootstrap.npz", names, reason, "the runs again") from error
    storage.make_folder(output)
    for name, text in texts.items():
        with storage.disk_errors(output / name, is_users_choice=True):
            storage.write_text(output / name, text)
    return output / "comparison.html"


def _texts(runs: Sequence[RunFiles]) -> dict[str, str]:
    """The csv file and the page of runs of one kind."""
    if runs[0].kind == RETRIEVAL:
        retrieval = retrieval_comparison()
        return {"comparison.csv": retrieval.retrieval_csv(runs), "comparison.html": retrieval.retrieval_page(runs)}
    compared = list(compare(runs))
    return {"comparison.csv": comparison_csv(runs, compared), "comparison.html": comparison_page(runs, compared)}


def compare(runs: Sequence[RunFiles]) -> Iterator[Compared]:
    """Every headline metric of every run, split and track; a difference only where the first run has that track."""
    first = runs[0]
    for split in _measured(first):
        for track in tracks_of(runs):
            for run in runs:
                if track in run.metrics["splits"][split]["tracks"]:
                    yield from (_compared(first, run, split, track, metric) for metric in _METRICS)


def tracks_of(runs: Sequence[RunFiles]) -> list[str]:
    """Every track that some run has, in the order of their first appearance."""
    every = [track for run in runs for result in run.metrics["splits"].values() for track in result["tracks"]]
    return list(dict.fromkeys(every))


def comparison_csv(runs: Sequence[RunFiles], compared: Sequence[Compared]) -> str:
    """One line per run, track, split and metric, fractions; the split "test - val" holds the gap and its interval."""
    rows: list[list[Any]] = []
    for result in compared:
        cells: list[Any] = [None] * 4
        if result.difference is not None:
            value, between = result.difference
            cells = [value, *(between or (None, None)), result.difference.excludes_zero]
        rows.append([*result[:5], *(result.bounds or (None, None)), *cells])
    for run, track, metric, gap in _gaps(runs):
        rows.append([run, track, "test - val", metric, gap.value, *(gap.bounds or (None, None)), *[None] * 4])
    return csv_text([*_HEAD, *_DIFFERENCE_HEAD], rows)


def comparison_page(runs: Sequence[RunFiles], compared: Sequence[Compared]) -> str:
    """The page: who was compared, per split and track a table, and validation beside test of every run."""
    first = runs[0]
    tracks = tracks_of(runs)
    gaps = [(run.name, gap_table(run.metrics, run.replicates)) for run in runs]
    return render(
        TEMPLATES / "comparison.html",
        **page_head(runs),
        intervals=first.metrics["protocol"]["intervals"],
        sections=[(split, [_table(runs, compared, split, track) for track in tracks]) for split in _measured(first)],
        gaps=[(name, table) for name, table in gaps if table],
    )


def page_head(runs: Sequence[RunFiles]) -> dict[str, Any]:
    """What the page says of runs of any kind: who they are, and what they do not share."""
    return {
        "title": f"{len(runs)} runs on {runs[0].split}",
        "first": runs[0].name,
        "runs": _facts(runs),
        "untrained": [run.name for run in runs if run.metrics["untrained"]],
        "warning": verdicts.UNTRAINED,
    }


def _compared(first: RunFiles, run: RunFiles, split: str, track: str, metric: str) -> Compared:
    key = f"{split}/{track}/{metric}"
    value, draws = _value(run, split, track, metric), _draws(run, key)
    difference = None
    if run is not first and track in first.metrics["splits"][split]["tracks"]:
        difference = paired(_value(first, split, track, metric), value, (_draws(first, key), draws))
    return Compared(run.name, track, split, metric, value, bounds(draws), difference)


def _measured(run: RunFiles) -> list[str]:
    """Splits in which anything was to be found; the same for all runs, which have the same videos and queries."""
    return [name for name, result in run.metrics["splits"].items() if tables.has_truth(result)]


def _value(run: RunFiles, split: str, track: str, metric: str) -> float | None:
    return run.metrics["splits"][split]["tracks"][track]["macro"][metric]


def _draws(run: RunFiles, key: str) -> np.ndarray:
    if key not in run.replicates:
        raise DataError(
            "no bootstrap of this metric", f"{run.name}/bootstrap.npz", key, "the run again, with this version"
        )
    return run.replicates[key]


def _gaps(runs: Sequence[RunFiles]) -> Iterator[tuple[str, str, str, Difference]]:
    for run in runs:
        if {"val", "test"} <= set(_measured(run)):
            for track in run.metrics["splits"]["val"]["tracks"]:
                for metric in _METRICS:
                    yield run.name, track, metric, split_gap(run.metrics, run.replicates, track, metric)


def _facts(runs: Sequence[RunFiles]) -> Table:
    """A row per fact of how a run was made, those of its training below; one that runs do not share is marked."""
    by_run = [_facts_of(run) for run in runs]
    keys = list(dict.fromkeys(key for facts in by_run for key in facts))
    columns = [Column(run.name, _origin(run), run.name) for run in runs]
    rows = []
    for key in sorted(keys, key=lambda key: key.startswith((_TRAINING, _PROBE))):
        texts = [facts.get(key, tables.UNDEFINED) for facts in by_run]
        rows.append(Row(key, "", [Cell(text) for text in texts], "track" if len(set(texts)) > 1 else ""))
    return Table("What ran; lines that differ are marked", "", columns, rows, "words")


def _facts_of(run: RunFiles) -> dict[str, str]:
    facts = {key: str(value) for key, value in run.metrics["protocol"].items() if key != "intervals"}
    origins = (("training", _TRAINING, training_facts.facts), ("probe", _PROBE, probe_facts.facts))
    for name, prefix, facts_of in origins:
        if values := run.metrics.get(name):
            facts |= {f"{prefix}{key}": text for key, text in facts_of(values).items()}
    return facts


def _origin(run: RunFiles) -> str:
    commit = run.environment.get("commit")
    made = f"commit {str(commit)[:12]}" if commit else "no git commit"
    return f"{made}, seed {run.config.get('run', {}).get('seed', tables.UNDEFINED)}"


def _table(runs: Sequence[RunFiles], compared: Sequence[Compared], split: str, track: str) -> Table:
    by_key = {column.key: column for column in tables.HEADLINE}
    columns = [by_key[metric] for metric in _METRICS]
    rows = []
    for run in runs:
        results = [row for row in compared if (row.run, row.split, row.track) == (run.name, split, track)]
        note = f"{run.metrics['protocol']['weights']}; {run.metrics['protocol']['clips']}"
        if run.metrics["track"] == track:
            note += "; its answers are of this track"
        if not results:
            rows.append(Row(run.name, "has no such track", [Cell(tables.UNDEFINED)] * len(columns)))
            continue
        label = f"{run.name} ({track})"
        rows.append(Row(label, note, [_cell(result) for result in results], "track" if run is runs[0] else ""))
    count = runs[0].metrics["splits"][split]["videos"]
    return Table(f"{split}, {track}: {count} videos", "run (track)", columns, rows)


def _cell(result: Compared) -> Cell:
    """The value, its interval, and Δ, the paired difference, with * where its interval excludes 0."""
    lines = [tables.interval(result.bounds)] if result.bounds else []
    if result.difference is not None:
        value, _, between = verdicts.signed(result.difference).partition(" ")
        lines += [f"Δ {value}{' *' if result.difference.excludes_zero else ''}", between]
    return Cell(tables.number(result.value), tuple(line for line in lines if line))
