"""How the heads of a linear probe came to be: facts, words and tables of metrics.json's "probe".

"probe" holds facts (name -> text or number), among them features, windows, videos, stride_seconds, monitor (the val
number that chose λ), chosen_on ("val, 8 videos", or "nothing: " and why) and refit (what the final heads learned from,
"train" or "train+val"); "heads", one per kind of query, each with the "sweep" over λ and its "classes"; "temporal", the
network over whole videos, or None; and "few_shot", a row per number of training videos and draw of them, or None. Any
number may be None but what a row is about: λ of a sweep's row, the epoch, the number of training videos.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xclip_module.reporting import tables, training
from xclip_module.reporting.tables import Cell, Column, Row, Table
from xclip_module.reporting.verdicts import PRIOR

# The file names of the pictures, without suffix.
PICTURES = SWEEP, LEARNING, TEMPORAL = "probe_sweep", "learning_curve", "probe_temporal"
# What a probe of few videos is measured by.
METRICS = training.METRICS[:3]
_NESTED = ("heads", "temporal", "few_shot")


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


def facts(probe: Mapping[str, Any]) -> dict[str, str]:
    """Everything that is no series, as name -> text: what was probed, then each head, then the temporal head.

    >>> head = {"kind": "phase", "form": "softmax over 7 phases", "lambda": 10.0, "best": 0.5}
    >>> facts({"windows": 80, "monitor": "AUROC", "heads": [head], "temporal": None, "few_shot": None})
    {'windows': '80', 'monitor': 'AUROC', 'phase head': 'softmax over 7 phases; λ = 10, val AUROC 50.0 %'}
    """
    found = training.facts({key: value for key, value in probe.items() if key not in _NESTED})
    for head in probe["heads"]:
        best = f"val {probe['monitor']} {_percent(head['best'])}"
        found[f"{head['kind']} head"] = f"{head['form']}; λ = {strength_text(head['lambda'])}, {best}"
    temporal = probe["temporal"]
    if temporal:
        sees = "sees only the past" if temporal["is_causal"] else "sees the whole video, past and future"
        found["temporal head"] = f"{temporal['what']}; {sees}; {count_text(temporal['parameters'])} parameters"
        found["temporal training"] = (
            f"{count_text(temporal['epochs'])} epochs, {count_text(temporal['seconds'])} s; the best epoch was "
            f"{count_text(temporal['best_epoch'])}, val {probe['monitor']} {_percent(temporal['best'])}"
        )
    return found


def in_words(probe: Mapping[str, Any]) -> list[str]:
    """What was probed on what, what chose λ, and which classes could not be learned; a sentence or two each."""
    kinds = " and ".join(head["kind"] for head in probe["heads"])
    strengths = " and ".join(f"{strength_text(head['lambda'])} ({head['kind']})" for head in probe["heads"])
    chosen = f"λ = {strengths} was chosen on {probe['chosen_on']}"
    if has_chosen(probe):
        chosen += f", by {probe['monitor']}, so that numbers of val are optimistic"
    if probe["refit"] != "train":
        chosen += f"; with it the heads were trained again on {probe['refit']}"
    words = [
        f"A linear head per kind of query ({kinds}) was trained on {count_text(probe['windows'])} windows of "
        f"{videos_text(probe['videos'])}. It sees of a window: {probe['features']}.",
        f"{chosen}.",
    ]
    for head in probe["heads"]:
        names = [one["name"] for one in head["classes"] if not one["known"]]
        if names:
            words.append(
                f"Nothing to learn of {', '.join(names)} ({head['kind']}): in no training window, or in every one. "
                "Their scores are constant."
            )
    return words


def cautions(probe: Mapping[str, Any]) -> list[str]:
    """A sentence per head whose λ was chosen at an end of what was tried: the best one may lie beyond."""
    found = []
    for head in probe["heads"]:
        tried = sorted({row["lambda"] for row in head["sweep"]})
        if len(tried) < 2 or head["lambda"] not in (tried[0], tried[-1]) or not has_chosen(probe):
            continue
        end, beyond = ("smallest", "smaller") if head["lambda"] == tried[0] else ("largest", "larger")
        found.append(
            f"The chosen λ of the {head['kind']} head, {strength_text(head['lambda'])}, is the {end} of those tried "
            f"({strength_text(tried[0])} to {strength_text(tried[-1])}): a {beyond} one may do better."
        )
    return found


def has_chosen(probe: Mapping[str, Any]) -> bool:
    """Whether val videos chose λ.

    >>> has_chosen({"chosen_on": "val, 8 videos"}), has_chosen({"chosen_on": "nothing: no val video"})
    (True, False)
    """
    return not probe["chosen_on"].startswith("nothing")


def sweep_table(probe: Mapping[str, Any]) -> Table | None:
    """A row per λ that any head tried, ascending; the chosen ones marked. None where nothing was tried."""
    heads, monitor = probe["heads"], probe["monitor"]
    tried = [{row["lambda"]: row for row in head["sweep"]} for head in heads]
    columns = [
        Column(name, head["kind"], f"{head['kind']}/{name}")
        for head in heads
        for name in (f"train {monitor} %", f"val {monitor} %", "steps")
    ]
    rows = []
    for strength in sorted(set().union(*tried)):
        found: list[Cell] = []
        for head, own in zip(heads, tried, strict=True):
            found += _swept(own.get(strength), is_chosen=strength == head["lambda"])
        is_chosen = any(strength == head["lambda"] for head in heads)
        rows.append(Row(strength_text(strength), "", found, "track" * is_chosen))
    caption = f"{monitor} of the training and the val videos and steps of the solver by λ; empty = not tried"
    return Table(caption, "λ", columns, rows) if rows else None


def class_table(probe: Mapping[str, Any]) -> Table | None:
    """How many training windows and videos hold each class; None where there is none."""
    columns = (Column("windows", "", "windows"), Column("videos", "", "videos"))
    rows = [
        Row(
            one["name"],
            head["kind"] if one["known"] else f"{head['kind']}; nothing to learn, constant scores",
            [Cell(count_text(one[column.key])) for column in columns],
        )
        for head in probe["heads"]
        for one in head["classes"]
    ]
    return Table("Training windows and videos that hold each class", "class", columns, rows) if rows else None


def few_shot_table(metrics: Mapping[str, Any]) -> Table | None:
    """A row per number of training videos: mean and range over draws per split; the time prior below. None without.

    metrics: as in metrics.json, for its time prior.
    """
    probe = metrics["probe"]
    found = spreads(probe["few_shot"]) if probe["few_shot"] else []
    if not found:
        return None
    keys = list(dict.fromkeys((one.split, one.metric) for one in found))
    columns = [Column("draws", "", "draws")]
    heads = {column.key: column.head for column in METRICS}
    for split, metric in keys:
        by_luck = chance(probe["few_shot"], split, metric)
        note = split if by_luck is None else f"{split}, chance {tables.number(by_luck)}"
        columns.append(Column(heads[metric], note, f"{split}/{metric}"))
    rows = []
    for shots in sorted({one.shots for one in found}):
        own = {(one.split, one.metric): one for one in found if one.shots == shots}
        is_all = shots == probe["videos"]
        cells = [Cell(str(own[keys[0]].draws)), *(_spread_cell(own[key]) for key in keys)]
        rows.append(Row(videos_text(shots), "all training videos" * is_all, cells, "track" * is_all))
    prior = [prior_of(metrics, split, metric) for split, metric in keys]
    if any(value is not None for value in prior):
        cells = [Cell(""), *(Cell(tables.number(value)) for value in prior)]
        rows.append(Row(PRIOR, tables.CONTROLS[PRIOR] + "; of all training videos", cells, "control"))
    draws = max(one.draws for one in found)
    caption = (
        "The probe trained again on few videos, with a λ of its own for every draw. Mean over draws; in brackets the "
        f"range over draws, smallest to largest, which of {draws} draws holds the median over all possible ones with "
        f"{100 * (1 - 2.0 ** (1 - draws)):.1f} % probability; other val or test videos are another matter"
    )
    return Table(caption, "training videos", columns, rows)


def spreads(few_shot: Mapping[str, Any]) -> list[Spread]:
    """Mean and range over draws, for every split and metric by ascending number of training videos."""
    rows = few_shot["rows"]
    splits = list(dict.fromkeys(split for row in rows for split in row["splits"]))
    counts = sorted({row["shots"] for row in rows})
    found = []
    for split in splits:
        for column in METRICS:
            for shots in counts:
                own = [row for row in rows if row["shots"] == shots]
                found.append(_spread(own, split, column.key))
    return found


def chance(few_shot: Mapping[str, Any], split: str, metric: str) -> float | None:
    """What scores without any knowledge would reach: a half, the split's prevalence; None where that is not known."""
    if metric == "AUROC":
        return 0.5
    shares = (row["splits"].get(split, {}).get("prevalence") for row in few_shot["rows"])
    return next((share for share in shares if share is not None), None) if metric == "AUPRC" else None


def prior_of(metrics: Mapping[str, Any], split: str, metric: str) -> float | None:
    """The time prior's value; None where there is none."""
    return metrics["splits"].get(split, {}).get("controls", {}).get(PRIOR, {}).get(metric)


def strength_text(value: float | None) -> str:
    """A λ in up to four digits.

    >>> strength_text(31.6227766), strength_text(1e-6), strength_text(None)
    ('31.62', '1e-06', '–')
    """
    return tables.UNDEFINED if value is None else f"{value:.4g}"


def count_text(value: float | None) -> str:
    """A whole number in all its digits.

    >>> count_text(1234567.0), count_text(None)
    ('1234567', '–')
    """
    return tables.UNDEFINED if value is None else f"{value:.0f}"


def videos_text(count: float | None) -> str:
    """A number of videos.

    >>> videos_text(1), videos_text(32)
    ('1 video', '32 videos')
    """
    return f"{count_text(count)} video{'s' * (count != 1)}"


def _swept(row: Mapping[str, Any] | None, *, is_chosen: bool) -> list[Cell]:
    """Train, val and steps of one head at one λ."""
    if row is None:
        return [Cell("")] * 3
    val = Cell(tables.number(row["val"]), ("chosen",) * is_chosen)
    return [Cell(tables.number(row["train"])), val, Cell(count_text(row["steps"]))]


def _spread(rows: Sequence[Mapping[str, Any]], split: str, metric: str) -> Spread:
    """rows: the draws of one number of training videos."""
    shots = rows[0]["shots"]
    known = [value for row in rows if (value := row["splits"].get(split, {}).get(metric)) is not None]
    if not known:
        return Spread(shots, split, metric, None, None, None, 0, len(rows))
    return Spread(shots, split, metric, float(np.mean(known)), min(known), max(known), len(known), len(rows))


def _spread_cell(one: Spread) -> Cell:
    below = []
    if one.known > 1 and one.low is not None and one.high is not None:
        below.append(tables.interval((one.low, one.high)))
    if 0 < one.known < one.draws:
        below.append(f"of {one.known} draw{'s' * (one.known > 1)}")
    return Cell(tables.number(one.mean), tuple(below))


def _percent(value: float | None) -> str:
    return tables.UNDEFINED if value is None else f"{tables.number(value)} %"
