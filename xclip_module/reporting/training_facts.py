"""How the weights of a fine-tuned run came to be: facts, words and validations of metrics.json's "training".

"training" holds facts (name -> text or number), among them weights, loss, clips, videos, steps, best_step, monitor
(a key of METRICS or RETRIEVAL) and chosen ("best", or "last" and why); "curve", a row of step, loss, floor, lr and
grad_norm per logged line; and "validations", a row of step and METRICS per validation, step 0 from before training.
Any number of these rows may be None. For retrieval the validations hold RETRIEVAL instead, and "validated_on" begins
with the name of the split that was validated on, which for a set without val is the one that is reported.

N logged lines, K validations.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xclip_module.reporting import tables
from xclip_module.reporting.chart import clock
from xclip_module.reporting.tables import Column, Row, Table

# The file name of the picture, without suffix.
PICTURE = "training"
# What is validated, under the names by which finetune.monitor chooses one.
METRICS = (
    Column("AUROC %", "chance 50", "AUROC"),
    Column("AUPRC %", "AP", "AUPRC"),
    Column("mAP@0.5 %", "det_mAP", "mAP@0.5"),
    Column("R1@0.5 %", "tIoU ≥ 0.5", "R1@0.5"),
    Column("mIoU %", "first answer", "mIoU"),
)
_AT = (("R@1 %", "percent"), ("R@5 %", "percent"), ("R@10 %", "percent"), ("MdR", "rank"), ("MnR", "rank"))
# What is validated of retrieval, text → video before video → text.
RETRIEVAL = tuple(
    Column(head, side, f"{side}/{head.removesuffix(' %')}", kind) for side in ("t2v", "v2t") for head, kind in _AT
)
# What is no fact but drawn, or a table of its own.
_SERIES = ("curve", "validations")
# Rows of the table of validations.
_SHOWN = 12


def columns(training: Mapping[str, Any]) -> tuple[Column, ...]:
    """What the validations of a training hold: METRICS, or RETRIEVAL."""
    return RETRIEVAL if any(column.key == training["monitor"] for column in RETRIEVAL) else METRICS


def validated_on(training: Mapping[str, Any]) -> str:
    """The split that was validated on.

    >>> validated_on({"validated_on": "test (this set has no val split)"}), validated_on({})
    ('test', 'val')
    """
    return training.get("validated_on", "val").split()[0]


def is_best(training: Mapping[str, Any]) -> bool:
    """Whether a validation chose the weights; without a val split those of the last step are kept."""
    return training["chosen"].startswith("best")


def kept_step(training: Mapping[str, Any]) -> int:
    """The step whose weights were kept and evaluated; 0 = those from before training.

    >>> kept_step({"chosen": "best", "best_step": 900, "steps": 1200})
    900
    >>> kept_step({"chosen": "last (no val split)", "best_step": None, "steps": 1200})
    1200
    """
    return training["best_step"] if is_best(training) else training["steps"]


def facts(training: Mapping[str, Any]) -> dict[str, str]:
    """Everything but the series, as name -> text.

    >>> facts({"batch_size": 64, "seconds": 812.4, "lr": 1e-4, "cached": True, "note": None, "curve": []})
    {'batch size': '64', 'time': '812 s (13:32 mm:ss)', 'lr': '0.0001', 'cached': 'yes', 'note': '–'}
    """
    texts = {}
    for key, value in training.items():
        if key == "seconds" and value is not None:
            texts["time"] = f"{value:.0f} s ({clock(value)} mm:ss)"
        elif key not in _SERIES:
            texts[key.replace("_", " ")] = _text(value)
    return texts


def in_words(training: Mapping[str, Any]) -> str:
    """What training did to the number that was watched, mostly on val, in one or two sentences."""
    kept, monitor, rows = kept_step(training), training["monitor"], training["validations"]
    split = validated_on(training)
    if not is_best(training):
        return f"The weights of the last step, {kept}, were kept: no validation chose among the steps."
    before, after = (tables.number(_at(rows, step, monitor)) for step in (0, kept))
    if not kept:
        return (
            f"No validation had a better {split} {monitor} than the weights from before training ({before} %). These "
            "were kept: the numbers of this report are theirs."
        )
    return (
        f"{split.capitalize()} {monitor} was {before} % before training and {after} % at step {kept}, the best of "
        f"{len(rows)} validations; its weights were kept."
    )


def validations(training: Mapping[str, Any]) -> Table | None:
    """A row per validation, the kept one marked; of many only some, see `chosen_rows`. None without any."""
    rows, kept = training["validations"], kept_step(training)
    if not rows:
        return None
    shown_columns = [
        column._replace(note=f"{column.note}, chose the step")
        if is_best(training) and column.key == training["monitor"]
        else column
        for column in columns(training)
    ]
    shown = chosen_rows(rows, kept)
    caption = f"Validations during training, {len(shown)} of {len(rows)}"
    if len(shown) < len(rows):
        caption += f"; all of them are in pictures/{PICTURE}.validations.csv"
    body = [
        Row(
            f"step {row['step']}",
            note_of(row["step"], kept),
            tables.cells(row, shown_columns),
            "track" * (row["step"] == kept),
        )
        for row in shown
    ]
    return Table(caption, "validation", shown_columns, body)


def chosen_rows(rows: Sequence[Mapping[str, Any]], kept: int, *, most: int = _SHOWN) -> list[Mapping[str, Any]]:
    """All rows where they are few, else first, last and kept one and others at even distances, about `most`.

    >>> [row["step"] for row in chosen_rows([{"step": step} for step in range(101)], 33, most=5)]
    [0, 25, 33, 50, 75, 100]
    """
    chosen = set(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int).tolist())
    return [row for index, row in enumerate(rows) if index in chosen or row["step"] == kept]


def note_of(step: int, kept: int) -> str:
    """What is special about a validation.

    >>> note_of(0, 9), note_of(9, 9), note_of(0, 0), note_of(3, 9)
    ('before training', 'kept', 'before training, kept', '')
    """
    return ", ".join(["before training"] * (step == 0) + ["kept"] * (step == kept))


def series(rows: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
    """One number of every row, [N] or [K]; NaN where there is none."""
    return np.array([np.nan if row.get(key) is None else row[key] for row in rows], float)


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of the `window` (odd) values around each; fewer at the ends, NaN left out, NaN where nothing is known.

    >>> running_mean(np.array([1.0, 2.0, np.nan, 6.0]), 3)
    array([1.5, 1.5, 4. , 6. ])
    """
    kernel, is_known = np.ones(window), np.isfinite(values)
    # Full, then cut: numpy's "same" is as long as the longer of the two.
    cut = slice(window // 2, window // 2 + len(values))
    count = np.convolve(is_known, kernel)[cut]
    total = np.convolve(np.where(is_known, values, 0.0), kernel)[cut]
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _at(rows: Sequence[Mapping[str, Any]], step: int, metric: str) -> float | None:
    return next((row.get(metric) for row in rows if row["step"] == step), None)


def _text(value: Any) -> str:
    if value is None:
        return tables.UNDEFINED
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
