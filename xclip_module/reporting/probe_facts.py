"""How the heads of a linear probe came to be: facts, words and tables of metrics.json's "probe".

"probe" holds facts (name -> text or number), among them features, windows, videos, stride_seconds, monitor (the val
number that chose λ), chosen_on ("val, 8 videos", or "nothing: " and why) and refit (what the final heads learned from,
"train" or "train+val"); "heads", one per kind of query, each with the "sweep" over λ and its "classes"; "temporal", the
network over whole videos, or None; and "few_shot", see `few_shot`, or None. Any number may be None but what a row is
about: λ of a sweep's row, the epoch, the number of training videos.
"""

from collections.abc import Mapping
from typing import Any

from xclip_module.reporting import tables, training_facts
from xclip_module.reporting.few_shot import videos_text
from xclip_module.reporting.tables import Cell, Column, Row, Table, count_text

# The file names of the pictures, without suffix.
PICTURES = SWEEP, LEARNING, EPOCHS = "probe_sweep", "learning_curve", "probe_temporal"
# What is no fact but a series, with words of its own below.
_NESTED = ("heads", "temporal", "few_shot")


def facts(probe: Mapping[str, Any]) -> dict[str, str]:
    """Everything that is no series, as name -> text: what was probed, then each head, then the temporal head.

    >>> head = {"kind": "phase", "form": "softmax over 7 phases", "lambda": 10.0, "best": 0.5}
    >>> facts({"windows": 80, "monitor": "AUROC", "heads": [head], "temporal": None, "few_shot": None})
    {'windows': '80', 'monitor': 'AUROC', 'phase head': 'softmax over 7 phases; λ = 10, val AUROC 50.0 %'}
    """
    texts = training_facts.facts({key: value for key, value in probe.items() if key not in _NESTED})
    for head in probe["heads"]:
        best = f"val {probe['monitor']} {_percent(head['best'])}"
        texts[f"{head['kind']} head"] = f"{head['form']}; λ = {strength_text(head['lambda'])}, {best}"
    temporal = probe["temporal"]
    if temporal:
        sees = "sees only the past" if temporal["is_causal"] else "sees the whole video, past and future"
        texts["temporal head"] = f"{temporal['what']}; {sees}; {count_text(temporal['parameters'])} parameters"
        texts["temporal training"] = (
            f"{count_text(temporal['epochs'])} epochs, {count_text(temporal['seconds'])} s; the best epoch was "
            f"{count_text(temporal['best_epoch'])}, val {probe['monitor']} {_percent(temporal['best'])}"
        )
    return texts


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
        names = [row["name"] for row in head["classes"] if not row["known"]]
        if names:
            words.append(
                f"Nothing to learn of {', '.join(names)} ({head['kind']}): in no training window, or in every one. "
                "Their scores are constant."
            )
    return words


def cautions(probe: Mapping[str, Any]) -> list[str]:
    """A sentence per head whose λ was chosen at an end of what was tried: the best one may lie beyond."""
    words = []
    for head in probe["heads"]:
        tried = sorted({row["lambda"] for row in head["sweep"]})
        if len(tried) < 2 or head["lambda"] not in (tried[0], tried[-1]) or not has_chosen(probe):
            continue
        end, beyond = ("smallest", "smaller") if head["lambda"] == tried[0] else ("largest", "larger")
        words.append(
            f"The chosen λ of the {head['kind']} head, {strength_text(head['lambda'])}, is the {end} of those tried "
            f"({strength_text(tried[0])} to {strength_text(tried[-1])}): a {beyond} one may do better."
        )
    return words


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
        cells: list[Cell] = []
        for head, row_of in zip(heads, tried, strict=True):
            cells += _swept(row_of.get(strength), is_chosen=strength == head["lambda"])
        is_chosen = any(strength == head["lambda"] for head in heads)
        rows.append(Row(strength_text(strength), "", cells, "track" * is_chosen))
    caption = f"{monitor} of the training and the val videos and steps of the solver by λ; empty = not tried"
    return Table(caption, "λ", columns, rows) if rows else None


def class_table(probe: Mapping[str, Any]) -> Table | None:
    """How many training windows and videos hold each class; None where there is none."""
    columns = (Column("windows", "", "windows"), Column("videos", "", "videos"))
    rows = [
        Row(
            row["name"],
            head["kind"] if row["known"] else f"{head['kind']}; nothing to learn, constant scores",
            [Cell(count_text(row[column.key])) for column in columns],
        )
        for head in probe["heads"]
        for row in head["classes"]
    ]
    return Table("Training windows and videos that hold each class", "class", columns, rows) if rows else None


def strength_text(value: float | None) -> str:
    """A λ in up to four digits.

    >>> strength_text(31.6227766), strength_text(1e-6), strength_text(None)
    ('31.62', '1e-06', '–')
    """
    return tables.UNDEFINED if value is None else f"{value:.4g}"


def _swept(row: Mapping[str, Any] | None, *, is_chosen: bool) -> list[Cell]:
    """Train, val and steps of one head at one λ."""
    if row is None:
        return [Cell("")] * 3
    val = Cell(tables.number(row["val"]), ("chosen",) * is_chosen)
    return [Cell(tables.number(row["train"])), val, Cell(count_text(row["steps"]))]


def _percent(value: float | None) -> str:
    return tables.UNDEFINED if value is None else f"{tables.number(value)} %"
