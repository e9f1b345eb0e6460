"""Ground truth and predictions as .jsonl files in QVHighlights' form, of this project or any other tool."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from xclip_module.errors import DataError
from xclip_module.evaluation.segments import clean
from xclip_module.interface import Moment, Pair, Segment
from xclip_module.run.json_lines import read_json_lines

_TRUTH = "qid, query, vid, duration, relevant_windows [[start, end], …]"
_PREDICTION = "qid, pred_relevant_windows [[start, end, score], …]"


class JudgedFiles(NamedTuple):
    """What two files hold, ready to be judged.

    left_out: what was not judged, by reason -> count.
    """

    pairs: list[Pair]
    left_out: Mapping[str, int]


def read_files(predictions: Path, truth: Path, *, split: str = "") -> JudgedFiles:
    """Every line of the ground truth with its predictions, found by qid; a line without predictions has none.

    Lines that hold no `relevant_windows` are not annotated, predictions of them or of unknown qids cannot be judged;
    all are counted. With `split`, only lines of the ground truth whose field "split" says so are read, as a run's
    moments.jsonl has it, and predictions that name another split are passed over. Queries with a "name" are told apart
    by it, others by their text.
    Raises DataError with file and line for what is malformed, NaN included.
    """
    left_out: Counter[str] = Counter()
    answers: dict[Any, tuple[str, Any, list[Moment]]] = {}
    for line, row in _lines(predictions, {"qid", "pred_relevant_windows"}, _PREDICTION):
        if split and row.get("split", split) != split:
            continue
        moments = [Moment(*_numbers(w, 3, line, _PREDICTION)) for w in _list(row, "pred_relevant_windows", line)]
        kept = clean(moments, unique=False)
        left_out["predictions of no or negative length"] += kept.empty
        if row["qid"] in answers:
            raise DataError("repeated qid", line, f"{row['qid']!r} was predicted before")
        answers[row["qid"]] = (line, row.get("vid"), kept.kept)
    lines = _lines(truth, {"qid", "query", "vid"}, _TRUTH)
    chosen = [(line, row) for line, row in lines if not split or row.get("split") == split]
    predicted = len(answers)
    pairs = list(_judged_lines(chosen, truth, answers, left_out))
    left_out["predicted queries without ground truth"] += len(answers)
    if predicted and len(answers) == predicted and not split:
        reason = f"none of its {predicted} qids stands in {truth}"
        raise DataError("predictions of other queries", predictions, reason, "the same qids, numbers or texts, in both")
    if not pairs:
        raise DataError(
            "nothing to judge", truth, f"no line{f' of split {split}' * bool(split)} holds relevant_windows"
        )
    return JudgedFiles(pairs, {reason: count for reason, count in left_out.items() if count})


def _judged_lines(
    lines: Iterable[tuple[str, dict[str, Any]]], path: Path, answers: dict[Any, Any], left_out: Counter[str]
) -> Iterator[Pair]:
    """The annotated lines of the ground truth; takes each line's answer out of `answers`."""
    seen = set()
    for line, row in lines:
        if row["qid"] in seen:
            raise DataError("repeated qid", line, f"{row['qid']!r} stands on an earlier line too")
        seen.add(row["qid"])
        where, video, moments = answers.pop(row["qid"], ("", None, []))
        if video is not None and video != row["vid"]:
            raise DataError("predictions of another video", where, f"found {video!r}, {path} has {row['vid']!r}")
        if row.get("relevant_windows") is None:
            left_out["queries that are not annotated"] += 1
            continue
        numbers = (_numbers(window, 2, line, _TRUTH) for window in _list(row, "relevant_windows", line))
        windows: list[Segment] = [(start, end) for start, end in numbers]
        kept = clean(windows, unique=True)
        left_out["true segments of no or negative length"] += kept.empty
        left_out["repeated true segments"] += kept.repeated
        yield Pair(row.get("name") or row["query"], row["vid"], tuple(kept.kept), tuple(moments))


def _lines(path: Path, required: set[str], expected: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for line, row in read_json_lines(path, required, expected):
        if not isinstance(row["qid"], str | int) or isinstance(row["qid"], bool):
            raise DataError("wrong qid", line, f"found {row['qid']!r}, expected a number or text")
        for key in ("query", "vid", "name"):
            if not isinstance(row.get(key, ""), str):
                raise DataError(f"wrong {key}", line, f"found {str(row[key])[:60]}, expected text")
        yield line, row


def _list(row: Mapping[str, Any], key: str, line: str) -> list[Any]:
    if not isinstance(row[key], list):
        raise DataError(f"wrong {key}", line, f"found {str(row[key])[:60]!r}, expected a list of segments")
    return row[key]


def _numbers(window: Any, count: int, line: str, expected: str) -> list[float]:
    try:
        numbers = [float(value) for value in window if not isinstance(value, str | bool)]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    if len(numbers) != count or len(window) != count or not all(map(math.isfinite, numbers)):
        raise DataError("wrong segment", line, f"found {str(window)[:60]}; expected {expected}, finite numbers")
    return numbers
