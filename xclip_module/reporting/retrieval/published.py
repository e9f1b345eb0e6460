"""What the papers report on the five benchmarks of text-video retrieval, to stand beside our own numbers.

All of these are published, not ours: other training, other hardware, one run each. They come from the released metric
code, in which a tied query counts several times (see `evaluation.retrieval.ranks`); on MSVD v2t is by best captions.
"""

from collections.abc import Mapping
from typing import NamedTuple

# Stands beside every one of these numbers, wherever it is shown.
MARK = "published, not ours"

# Where the tables were read.
_XCLIP = "Ma et al. 2022 (X-CLIP, arXiv 2207.07285)"
_MMACTION = "open-mmlab/mmaction2, configs/retrieval/clip4clip/README.md"
_MMACTION_ROW = "MMAction2 | ViT-B/32 | 43.1 69.4 78.9 2.0 16.8 |"

# The headers' names of the papers, and ours.
_TEMPORAL = {
    "meanP": "CLIP4Clip meanP",
    "seqLSTM": "CLIP4Clip seqLSTM",
    "seqTransf": "CLIP4Clip seqTransf",
    "tightTransf": "CLIP4Clip tightTransf",
    "MMAction2": "CLIP4Clip meanP, MMAction2",
}

_NOTES = {
    ("msvd", "X-CLIP", "ViT-B/32"): "a user measured v2t R@1 50.0 with the released code (X-CLIP, issue 9)",
    ("lsmdc", "meanP", "ViT-B/16"): "v2t R@5 50.5 is as printed; all rows around it have 39 to 46",
}

# What the columns of a paper's table are, in each direction.
_FIVE = ("R@1", "R@5", "R@10", "MdR", "MnR")
_THREE = ("R@1", "R@5", "MnR")

# Columns, split, and the table in percent, as printed: text → video, then video → text.
_TABLES = {
    "msrvtt-9k": (
        _FIVE,
        "9,000 train, 1k-A test",
        """
        meanP       | ViT-B/32 | 43.1 70.4 80.8 2.0 16.2 | 43.1 70.5 81.2 2.0 12.4
        seqLSTM     | ViT-B/32 | 42.5 70.8 80.7 2.0 16.7 | 42.8 71.0 80.4 2.0 12.3
        seqTransf   | ViT-B/32 | 44.5 71.4 81.6 2.0 15.3 | 42.7 70.9 80.6 2.0 11.6
        tightTransf | ViT-B/32 | 40.2 71.5 80.5 2.0 13.4 | 40.6 69.5 79.5 2.0 13.6
        meanP       | ViT-B/16 | 45.3 73.3 83.0 2.0 13.0 | 44.8 73.2 82.2 2.0 9.6
        seqLSTM     | ViT-B/16 | 44.3 72.0 82.2 2.0 13.7 | 44.3 73.4 82.4 2.0 10.3
        seqTransf   | ViT-B/16 | 46.4 72.1 82.0 2.0 14.7 | 45.4 73.4 82.4 2.0 10.7
        tightTransf | ViT-B/16 | 42.9 71.7 81.5 2.0 13.3 | 41.9 71.0 80.7 2.0 10.1
        X-CLIP      | ViT-B/32 | 46.1 73.0 83.1 2.0 13.2 | 46.8 73.3 84.0 2.0 9.1
        X-CLIP      | ViT-B/16 | 49.3 75.8 84.8 2.0 12.2 | 48.9 76.8 84.5 2.0 8.1
        """,
    ),
    "msvd": (
        _THREE,
        "1,200 train, 670 test, all captions",
        """
        meanP     | ViT-B/32 | 46.2 76.1 10.0 | 56.6 79.7 7.6
        seqTransf | ViT-B/32 | 45.2 75.5 10.3 | 62.0 87.3 4.3
        meanP     | ViT-B/16 | 47.3 77.7 9.1  | 62.9 87.2 4.2
        seqTransf | ViT-B/16 | 47.2 77.7 9.1  | 63.2 87.2 4.2
        X-CLIP    | ViT-B/32 | 47.1 77.8 9.5  | 60.9 87.8 4.7
        X-CLIP    | ViT-B/16 | 50.4 80.6 8.4  | 66.8 90.4 4.2
        """,
    ),
    "lsmdc": (
        _THREE,
        "challenge test of 1,000 clips",
        """
        meanP     | ViT-B/32 | 20.7 38.9 65.3 | 20.6 39.4 56.7
        seqTransf | ViT-B/32 | 22.6 41.0 61.0 | 20.8 39.0 54.2
        meanP     | ViT-B/16 | 23.5 43.2 54.8 | 22.6 50.5 50.3
        seqTransf | ViT-B/16 | 23.5 45.2 51.6 | 23.2 42.4 47.4
        X-CLIP    | ViT-B/32 | 23.3 43.0 56.0 | 22.5 42.2 50.7
        X-CLIP    | ViT-B/16 | 26.1 48.4 46.7 | 26.9 46.2 41.9
        """,
    ),
    "didemo": (
        _THREE,
        "paragraph of a video, test",
        """
        meanP     | ViT-B/32 | 43.4 70.2 17.5 | 42.5 70.6 11.6
        seqTransf | ViT-B/32 | 42.8 68.5 18.9 | 41.4 68.2 12.4
        meanP     | ViT-B/16 | 44.8 75.1 13.0 | 47.2 74.0 10.5
        seqTransf | ViT-B/16 | 44.8 73.4 13.5 | 44.7 74.0 10.6
        X-CLIP    | ViT-B/32 | 45.2 74.0 14.6 | 43.1 72.2 10.9
        X-CLIP    | ViT-B/16 | 47.8 79.3 12.6 | 47.8 76.8 10.5
        """,
    ),
    "activitynet": (
        _THREE,
        "paragraph of a video, val_1",
        """
        meanP     | ViT-B/32 | 40.5 72.4 7.4 | 42.5 74.1 6.6
        seqTransf | ViT-B/32 | 40.5 72.4 7.5 | 41.4 73.7 6.7
        meanP     | ViT-B/16 | 44.0 73.9 7.0 | 44.1 74.0 6.5
        seqTransf | ViT-B/16 | 44.5 75.2 6.4 | 44.1 75.2 6.4
        X-CLIP    | ViT-B/32 | 44.3 74.1 7.9 | 43.9 73.9 7.6
        X-CLIP    | ViT-B/16 | 46.2 75.5 6.8 | 46.4 75.9 6.4
        """,
    ),
}


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
    note: str = ""


def published(benchmark: str) -> tuple[Published, ...]:
    """The rows of "msrvtt-9k", "msvd", "lsmdc", "didemo" or "activitynet", in the order of the papers; () for others.

    MMAction2's form of the same annotations ("msvd-mmaction2") has the same rows.

    >>> [row.values["t2v/R@1"] for row in published("msvd") if row.method == "X-CLIP"]
    [0.471, 0.504]
    """
    benchmark = benchmark.removesuffix("-mmaction2")
    columns, split, table = _TABLES.get(benchmark, ((), "", ""))
    rows = [_row(benchmark, split, columns, line, _XCLIP) for line in table.strip().splitlines()]
    if benchmark == "msrvtt-9k":
        rows.append(_row(benchmark, split, columns, _MMACTION_ROW, _MMACTION))
    return tuple(rows)


def tested_on(benchmark: str) -> str:
    """The split that the papers report: ActivityNet's has no test split."""
    return "val" if benchmark == "activitynet" else "test"


def _row(benchmark: str, split: str, columns: tuple[str, ...], line: str, source: str) -> Published:
    method, backbone, t2v, v2t = (cell.strip() for cell in line.split("|"))
    values = {}
    for direction, cells in (("t2v", t2v), ("v2t", v2t)):
        # Rounded to the digits that a table in percent has.
        for name, cell in zip(columns if cells else (), cells.split(), strict=True):
            values[f"{direction}/{name}"] = round(float(cell) / 100, 4) if name.startswith("R@") else float(cell)
    named = _TEMPORAL.get(method, method)
    cited = source if method == "X-CLIP" or source == _MMACTION else f"{source}, there cited from Luo et al. 2022"
    return Published(benchmark, split, named, backbone, values, cited, _NOTES.get((benchmark, method, backbone), ""))
