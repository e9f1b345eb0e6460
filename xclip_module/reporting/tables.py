"""Tables of a run: rows of metrics.json as text, percent where the head says so."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

UNDEFINED = "–"

CONTROLS = {
    "random": "noise instead of scores, through the same segmenter",
    "whole video": "one answer to every search: the whole video",
    "train mean": "one answer: where the query lies on average in the training videos; sees no picture",
    "time prior": "how often the query holds at that relative time in the training videos; sees no picture",
    "oracle": "the truth itself through the segmenter: the best that this stride can reach",
}
TRACKS = {
    "similarity-only": "each sentence alone against the video",
    "+query-set": "sentences compared with each other: knows that one of the phases holds",
    "+procedure-order": "also knows the order of the procedure",
    "+temporal": "a small network over the probed windows of the whole video, trained; not a per-window linear head",
}


class Column(NamedTuple):
    """One metric: what stands in the head, what its chance is, its key, and how it is printed."""

    head: str
    note: str
    key: str
    kind: str = "percent"


class Cell(NamedTuple):
    """A number as text, and the small lines below it: its 95 % interval, its difference from another."""

    text: str
    below: tuple[str, ...] = ()


class Row(NamedTuple):
    """label, note: first column.  kind: "track", "control" or "" for the look.  target: id to link to, or ""."""

    label: str
    note: str
    cells: list[Cell]
    kind: str = ""
    target: str = ""


class Table(NamedTuple):
    """caption: what every number is about.  first: head of the first column.  kind: "words" where cells are texts."""

    caption: str
    first: str
    columns: Sequence[Column]
    rows: list[Row]
    kind: str = ""


_RANKING = (
    Column("AUROC %", "chance 50", "AUROC"),
    Column("AP %", "chance = prevalence", "AUPRC"),
    Column("prevalence %", "", "prevalence"),
    Column("lift", "chance 1", "lift", "ratio"),
)
_FIRST = (Column("R@1 %", "tIoU ≥ 0.5", "R1@0.5"), Column("mIoU %", "first answer", "mIoU"))
_DETECTION = tuple(Column(f"det_mAP @{limit} %", "", f"det_mAP@{limit}") for limit in (0.3, 0.5, 0.7))
HEADLINE = (
    *_RANKING,
    *_FIRST,
    *_DETECTION,
    Column("det_mAP %", "mean of 0.5:0.95", "det_mAP@0.5:0.95"),
    Column("pair_mAP @0.5 %", "", "pair_mAP@0.5"),
)
_POOLED = (
    Column("pooled AUROC %", "all videos in one list", "AUROC_pooled"),
    Column("pooled AP %", "all videos in one list", "AUPRC_pooled"),
    Column("pooled prevalence %", "chance of pooled AP", "prevalence_pooled"),
)
_COUNTS = (
    Column("pairs with truth", "", "pairs_with_truth", "count"),
    Column("absent pairs", "query never happens", "pairs_absent", "count"),
    Column("… with an answer", "false alarms", "pairs_absent_with_predictions", "count"),
    Column("presence AUROC %", "largest score of the video, chance 50", "presence_AUROC_samples"),
    Column("presence AUROC %", "best moment, chance 50", "presence_AUROC"),
    Column("predictions", "", "predictions", "count"),
    Column("tied scores %", "of predictions", "tied_share"),
    *_POOLED,
)
_QUERY = (
    *_RANKING,
    *(column._replace(head=column.head.replace("mAP", "AP"), note="") for column in _DETECTION),
    *_FIRST,
    *_POOLED,
    Column("pairs", "videos that hold it", "pairs", "count"),
    Column("absent", "videos without it", "absent", "count"),
)
_VIDEO = (*_RANKING, *_FIRST, Column("pairs", "queries it holds", "pairs", "count"))
_PHASES = (
    Column("accuracy %", "mean over videos", "phase/accuracy"),
    Column("precision %", "strict, convention B", "phase/precision"),
    Column("recall %", "strict, convention B", "phase/recall"),
    Column("F1 %", "strict, convention B", "phase/F1"),
    Column("Jaccard %", "strict, convention B", "phase/jaccard"),
    Column("relaxed accuracy %", "only for comparison with old tables", "phase/relaxed_fixed/accuracy"),
    Column("relaxed Jaccard %", "only for comparison with old tables", "phase/relaxed_fixed/jaccard"),
    Column(
        "relaxed Jaccard %, as published",
        "with the slip of 2016; only for old tables",
        "phase/relaxed_as_published/jaccard",
    ),
)
_TOOLS = (
    Column("tool mAP %", "samples of all videos in one list (EndoNet)", "tool/mAP"),
    Column("tool mAP % video by video", "then the mean (CholecT50)", "tool/mAP_video_first"),
)


def number(value: float | None, kind: str = "percent") -> str:
    """A value as text: percent of a fraction, a ratio, a rank, a count; "–" where it is undefined.

    >>> number(0.1234), number(1.5, "ratio"), number(2, "rank"), number(3, "count"), number(None)
    ('12.3', '1.50', '2.0', '3', '–')
    """
    if value is None:
        return UNDEFINED
    return {
        "percent": f"{100 * value:.1f}",
        "ratio": f"{value:.2f}",
        "rank": f"{value:.1f}",
        "count": f"{value:g}",
    }[kind]


def interval(bounds: Sequence[float] | None) -> str:
    """A 95 % interval of fractions in percent.

    >>> interval([-0.1, 0.25]), interval(None)
    ('[−10.0, 25.0]', '')
    """
    return f"[{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]".replace("-", "−") if bounds else ""


def count_text(value: float | None) -> str:
    """A whole number in all its digits.

    >>> count_text(1234567.0), count_text(None)
    ('1234567', '–')
    """
    return UNDEFINED if value is None else f"{value:.0f}"


def has_truth(result: Mapping[str, Any]) -> bool:
    """Whether anything was to be found in a split, so that its numbers say something."""
    return result["macro"]["pairs_with_truth"] > 0


def headline(result: Mapping[str, Any], chosen: str) -> Table:
    """A row per track with 95 % intervals, then the controls. result: of one split; chosen: the track of the run."""
    rows = []
    for name, track in result["tracks"].items():
        note = TRACKS.get(name, "") + (" (the track of this run's answers)" if name == chosen else "")
        rows.append(Row(name, note, cells(track["macro"], HEADLINE, track["intervals"]), "track"))
    for name, macro in result["controls"].items():
        rows.append(Row(name, CONTROLS.get(name, ""), cells(macro, HEADLINE), "control"))
    has_intervals = any(any(track["intervals"].values()) for track in result["tracks"].values())
    caption = (
        "In brackets 95 % intervals from a bootstrap over videos. "
        * has_intervals
        + "AUROC, AP, prevalence: means over pairs of a video and a query. det_mAP ranks the answers of all videos in "
        "one list per query, pair_mAP those of one video; lift = AP / prevalence"
    )
    return Table(caption, "track or control", HEADLINE, rows)


def diagnostics(result: Mapping[str, Any]) -> Table:
    """How many pairs, absent queries, predictions and ties each track had."""
    rows = [Row(name, "", cells(track["macro"], _COUNTS)) for name, track in result["tracks"].items()]
    return Table("Absent queries, ties, and samples of all videos in one list", "track", _COUNTS, rows)


def phases_and_tools(result: Mapping[str, Any]) -> list[Table]:
    """Phase recognition and tool presence per track; no table where there is nothing to recognise."""
    kinds = (
        ("phases", _PHASES, "Phase recognition, one sample a second, largest score wins"),
        ("tools", _TOOLS, "Tool presence"),
    )
    tables = []
    for key, columns, caption in kinds:
        by_track = {name: track[key] for name, track in result["tracks"].items() if track[key]}
        measured = [column for column in columns if any(column.key in row for row in by_track.values())]
        if by_track:
            rows = [Row(name, "", cells(row, measured)) for name, row in by_track.items()]
            tables.append(Table(caption, "track", measured, rows))
    return tables


def queries(result: Mapping[str, Any], texts: Mapping[str, str]) -> Table:
    """A row per query, in the order of the run; texts: query name -> its sentence."""
    rows = []
    for name, row in result["queries"].items():
        text = texts.get(name, "")
        rows.append(Row(name, "" if text == name else f"“{text}”", cells(row, _QUERY)))
    return Table("Per query", "query", _QUERY, rows)


def worst_first(result: Mapping[str, Any]) -> list[str]:
    """Ids of the videos, lowest AUROC first; those without one last, equal ones by name."""
    rows = result["per_video"]

    def rank(video: str) -> tuple[bool, float, str]:
        value = rows[video]["AUROC"]
        return value is None, 0.0 if value is None else value, video

    return sorted(rows, key=rank)


def videos(result: Mapping[str, Any], targets: Mapping[str, str]) -> Table:
    """A row per video, worst first, linked to its picture; targets: video -> id on the page."""
    rows = [
        Row(video, "", cells(result["per_video"][video], _VIDEO), target=targets.get(video, ""))
        for video in worst_first(result)
    ]
    return Table("Per video, lowest AUROC first", "video", _VIDEO, rows)


def prompt_sets(result: Mapping[str, Any]) -> Table | None:
    """Each further prompt set, and mean and range over them; None where none was asked for."""
    sets = result["prompt_sets"]
    if not sets:
        return None
    columns = (*_RANKING[:2], _DETECTION[1]._replace(key="mAP@0.5"))
    rows = [Row(name, "", cells(row, columns)) for name, row in sets["sets"].items()]
    spread = sets["spread"]
    mean = {key: part["mean"] for key, part in spread.items() if part}
    ranges = {key: [part["low"], part["high"]] for key, part in spread.items() if part}
    rows.append(Row("mean", "range in brackets", cells(mean, columns, ranges), "track"))
    return Table("Other wordings of the same queries", "prompt set", columns, rows)


def cells(
    row: Mapping[str, Any], columns: Sequence[Column], intervals: Mapping[str, Sequence[float] | None] | None = None
) -> list[Cell]:
    """One cell per column; a ratio's interval is never given."""
    below = {key: (interval(bounds),) for key, bounds in (intervals or {}).items() if bounds}
    return [Cell(number(row.get(column.key), column.kind), below.get(column.key, ())) for column in columns]
