"""What the papers report on the five benchmarks of text-video retrieval, to stand beside our own numbers.

All of these are published, not ours: other training, other hardware, one run each. They come from the released metric
code, in which a tied query counts several times (see `evaluation.retrieval.ranks`); on MSVD v2t is by best captions.
`published.csv` holds them in percent, as printed.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

# Stands beside every one of these numbers, wherever it is shown.
MARK = "published, not ours"
_FILE = Path(__file__).with_suffix(".csv")


class Published(NamedTuple):
    """One row of a paper's table.

    split: what was trained on and tested on.  values: t2v/R@1, … v2t/MnR, only what the table has; R@K as fractions,
    MdR and MnR from 1.  source: where the numbers were read.  note: what is odd about them, or "".
    """

    benchmark: str
    split: str
    method: str
    backbone: str
    values: Mapping[str, float]
    source: str
    note: str


def published(benchmark: str) -> tuple[Published, ...]:
    """The rows of "msrvtt-9k", "msvd", "lsmdc", "didemo" or "activitynet", in the order of the papers; () for others.

    MMAction2's form of the same annotations ("msvd-mmaction2") has the same rows.

    >>> [row.values["t2v/R@1"] for row in published("msvd") if row.method == "X-CLIP"]
    [0.471, 0.504]
    """
    benchmark = benchmark.removesuffix("-mmaction2")
    with _FILE.open(encoding="utf-8", newline="") as file:
        return tuple(_row(cells) for cells in csv.DictReader(file) if cells["benchmark"] == benchmark)


def tested_on(benchmark: str) -> str:
    """The split that the papers report: ActivityNet's has no test split."""
    return "val" if benchmark == "activitynet" else "test"


def _row(cells: Mapping[str, str]) -> Published:
    # Rounded to the digits that a table in percent has.
    values = {
        name: round(float(cell) / 100, 4) if "/R@" in name else float(cell)
        for name, cell in cells.items()
        if "/" in name and cell
    }
    texts = {name: cells[name] for name in Published._fields if name != "values"}
    return Published(values=values, **texts)
