"""What a probe of few training videos would have reached: metrics.json's "probe" → "few_shot", beside the time prior.

"few_shot" holds "rows", one per number of training videos and draw of them: shots, draw, videos, lambda by kind of
query, and per split AUROC, AUPRC, prevalence and mAP@0.5, any of which may be None.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xclip_module.reporting import tables, training_facts
from xclip_module.reporting.tables import Cell, Column, Row, Table
from xclip_module.reporting.verdicts import PRIOR

# What a probe of few videos is measured by.
METRICS = training_facts.METRICS[:3]


class Spread(NamedTuple):
    """One metric of one split over the draws of `shots` training videos: fractions; None where no draw has a value.

    low, high: smallest and largest.  known, draws: how many draws have a value, and how many there are.
    """

    shots: int
    split: str
    metric: str
    mean: float | None
    low: float | None
    high: float | None
    known: int
    draws: int


def few_shot_table(metrics: Mapping[str, Any]) -> Table | None:
    """A row per number of training videos: mean and range over draws per split; the time prior below. None without.

    metrics: as in metrics.json, for its time prior.
    """
    few_shot = metrics["probe"]["few_shot"]
    every = spreads(few_shot) if few_shot else []
    if not every:
        return None
    keys = list(dict.fromkeys((spread.split, spread.metric) for spread in every))
    rows = []
    for shots in sorted({spread.shots for spread in every}):
        of_key = {(spread.split, spread.metric): spread for spread in every if spread.shots == shots}
        is_all = shots == metrics["probe"]["videos"]
        cells = [Cell(str(of_key[keys[0]].draws)), *(_spread_cell(of_key[key]) for key in keys)]
        rows.append(Row(videos_text(shots), "all training videos" * is_all, cells, "track" * is_all))
    prior = [prior_of(metrics, split, metric) for split, metric in keys]
    if any(value is not None for value in prior):
        cells = [Cell(""), *(Cell(tables.number(value)) for value in prior)]
        rows.append(Row(PRIOR, tables.CONTROLS[PRIOR] + "; of all training videos", cells, "control"))
    draws = max(spread.draws for spread in every)
    # The range of n draws misses the median only where all n lie on one side of it: 2 (1/2)^n.
    caption = (
        "The probe trained again on few videos, with a λ of its own for every draw. Mean over draws; in brackets the "
        f"range over draws, smallest to largest, which of {draws} draws holds the median over all possible ones with "
        f"{100 * (1 - 2.0 ** (1 - draws)):.1f} % probability; other val or test videos are another matter"
    )
    return Table(caption, "training videos", _columns(few_shot, keys), rows)


def _columns(few_shot: Mapping[str, Any], keys: Sequence[tuple[str, str]]) -> list[Column]:
    columns = [Column("draws", "", "draws")]
    heads = {column.key: column.head for column in METRICS}
    for split, metric in keys:
        by_luck = chance(few_shot, split, metric)
        note = split if by_luck is None else f"{split}, chance {tables.number(by_luck)}"
        columns.append(Column(heads[metric], note, f"{split}/{metric}"))
    return columns


def spreads(few_shot: Mapping[str, Any]) -> list[Spread]:
    """Mean and range over draws, for every split and metric by ascending number of training videos."""
    rows = few_shot["rows"]
    splits = list(dict.fromkeys(split for row in rows for split in row["splits"]))
    counts = sorted({row["shots"] for row in rows})
    return [
        _spread([row for row in rows if row["shots"] == shots], split, column.key)
        for split in splits
        for column in METRICS
        for shots in counts
    ]


def chance(few_shot: Mapping[str, Any], split: str, metric: str) -> float | None:
    """What scores without any knowledge would reach: a half, the split's prevalence; None where that is not known."""
    if metric == "AUROC":
        return 0.5
    shares = (row["splits"].get(split, {}).get("prevalence") for row in few_shot["rows"])
    return next((share for share in shares if share is not None), None) if metric == "AUPRC" else None


def prior_of(metrics: Mapping[str, Any], split: str, metric: str) -> float | None:
    """The time prior's value; None where there is none."""
    return metrics["splits"].get(split, {}).get("controls", {}).get(PRIOR, {}).get(metric)


def videos_text(count: float | None) -> str:
    """A number of videos.

    >>> videos_text(1), videos_text(32)
    ('1 video', '32 videos')
    """
    return f"{tables.count_text(count)} video{'s' * (count != 1)}"


def _spread(rows: Sequence[Mapping[str, Any]], split: str, metric: str) -> Spread:
    """rows: the draws of one number of training videos."""
    shots = rows[0]["shots"]
    values = [value for row in rows if (value := row["splits"].get(split, {}).get(metric)) is not None]
    mean, low, high = (float(np.mean(values)), min(values), max(values)) if values else (None, None, None)
    return Spread(shots, split, metric, mean, low, high, len(values), len(rows))


def _spread_cell(spread: Spread) -> Cell:
    below = []
    if spread.known > 1 and spread.low is not None and spread.high is not None:
        below.append(tables.interval((spread.low, spread.high)))
    if 0 < spread.known < spread.draws:
        below.append(f"of {spread.known} draw{'s' * (spread.known > 1)}")
    return Cell(tables.number(spread.mean), tuple(below))
