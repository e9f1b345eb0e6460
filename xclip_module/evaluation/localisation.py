"""How well ranked moments fit the truth: mAP under two rules, recall, mIoU, and who is there at all.

`python -m xclip_module.evaluation.localisation --predictions p.jsonl --ground-truth g.jsonl [--json]` judges the files
of any tool. T tIoU thresholds, V videos, B weightings of the videos. Times are seconds, results fractions.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xclip_module.evaluation.command_line import print_result
from xclip_module.evaluation.moment_files import read_files
from xclip_module.evaluation.segments import (
    AVERAGED,
    THRESHOLDS,
    Judged,
    PairResult,
    average_precisions,
    judge,
    judge_pair,
)
from xclip_module.interface import Pair

# The name of the mean over `AVERAGED`.
MEAN = "0.5:0.95"


class Localisation(NamedTuple):
    """Everything that the metrics and their bootstrap need.

    queries: of each query that happens somewhere, its judged predictions over all videos.
    results: of each pair with truth, (query, index of its video, result).
    """

    videos: tuple[str, ...]
    queries: dict[str, Judged]
    results: list[tuple[str, int, PairResult]]
    counts: dict[str, Any]


def localise_pairs(pairs: Sequence[Pair]) -> Localisation:
    """Judges all pairs; a pair that is not listed is not annotated and takes no part.

    A query that happens in none of its videos has no AP and is left out; its false alarms stand in `counts`.
    A pair that is listed twice is searched twice. Raises ValueError for NaN and for a segment without length (see
    `segments.clean`).
    """
    for pair in pairs:
        for segment in (*pair.truth, *pair.predictions):
            if not (np.isfinite(segment[:2]).all() and segment[0] < segment[1]) or np.isnan(segment).any():
                text = f"segment {tuple(segment)}, expected numbers, start < end"
                raise ValueError(f"{pair.video}, {pair.query!r}: {text}")
    videos = tuple(sorted({pair.video for pair in pairs}))  # not as they come: equal scores are ordered by video
    index_of = {video: index for index, video in enumerate(videos)}
    by_query: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_query.setdefault(pair.query, []).append(pair)
    queries = {name: judge(asked, index_of) for name, asked in by_query.items() if any(pair.truth for pair in asked)}
    results = [
        (pair.query, index_of[pair.video], judge_pair(pair.predictions, pair.truth)) for pair in pairs if pair.truth
    ]
    return Localisation(videos, queries, results, _counts(by_query, pairs))


def metrics(localisation: Localisation) -> dict[str, Any]:
    """One flat dict of fractions, None where undefined; see `statistics` for the keys, and the counts beside them."""
    values = statistics(localisation, np.ones((1, len(localisation.videos))))
    return {**{name: _plain(value[0]) for name, value in values.items()}, **localisation.counts}


def statistics(localisation: Localisation, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric [B] under B weightings [B, V] of the videos.

    det_mAP@t: ActivityNet rule, all videos in one list per query, mean over the queries with truth: does the score mean
    the same in every video?  pair_mAP@t: QVHighlights rule, one AP per video and query with truth, then the mean: is
    the ranking inside a video right?  R1@t, R5@t: share of pairs with truth in which the first prediction (one of the
    first five) has tIoU >= t.  mIoU: mean tIoU of the first. `@0.5:0.95` is the mean over 0.5, 0.55, … 0.95.

    Source: ActivityNet toolkit eval_detection.py; Moment-DETR standalone_eval/eval.py (QVHighlights), where mIoU is not
    part and R1 takes the first listed window.
    """
    detection = [average_precisions(judged, weights) for judged in localisation.queries.values()]  # [B, T] each
    # In a draw without any video that holds a query the query has no AP, and the mean is over the others.
    means = _nan_mean(np.stack(detection), axis=0) if detection else np.full((len(weights), len(THRESHOLDS)), np.nan)
    values = _at_thresholds("det_mAP", means)
    limits = np.array(THRESHOLDS)
    rows = [
        np.concatenate([result.ap, result.top1 >= limits, result.top5 >= limits, [result.top1]])
        for _, _, result in localisation.results
    ]
    # One matrix product for all metrics of a pair: AP, R1 and R5 at each threshold, then the tIoU of the first answer.
    table = np.array(rows).reshape(len(rows), 3 * len(limits) + 1)
    drawn = weights[:, [video for _, video, _ in localisation.results]]  # [B, pairs]
    with np.errstate(invalid="ignore"):
        pair_means = (drawn @ table) / drawn.sum(axis=1, keepdims=True)
    ap, first, five, iou = np.split(pair_means, np.cumsum([len(limits)] * 3), axis=1)
    values |= _at_thresholds("pair_mAP", ap)
    values |= _at_thresholds("R1", first, averaged=False)
    values |= _at_thresholds("R5", five, averaged=False)
    return {**values, "mIoU": iou[:, 0]}


def of_query(localisation: Localisation, name: str) -> dict[str, float | None]:
    """The same for one query; det_mAP@t is then its AP."""
    only = localisation._replace(
        queries={name: localisation.queries[name]} if name in localisation.queries else {},
        results=[result for result in localisation.results if result[0] == name],
    )
    values = statistics(only, np.ones((1, len(localisation.videos))))
    return {key: _plain(value[0]) for key, value in values.items()}


def _at_thresholds(name: str, values: np.ndarray, *, averaged: bool = True) -> dict[str, np.ndarray]:
    named = {f"{name}@{limit:g}": values[:, column] for column, limit in enumerate(THRESHOLDS)}
    if averaged:
        named[f"{name}@{MEAN}"] = values[:, [THRESHOLDS.index(limit) for limit in AVERAGED]].mean(axis=1)
    return named


def _counts(by_query: Mapping[str, Sequence[Pair]], pairs: Sequence[Pair]) -> dict[str, Any]:
    absent = [pair for pair in pairs if not pair.truth]
    predictions = sum(len(pair.predictions) for pair in pairs)
    tied = 0
    # Per query: only the predictions of one query are ever ranked against each other.
    for asked in by_query.values():
        scores = [moment.score for pair in asked for moment in pair.predictions]
        _, repeats = np.unique(scores, return_counts=True)
        tied += int(repeats[repeats > 1].sum())
    return {
        "queries": len(by_query),
        "queries_with_truth": sum(any(pair.truth for pair in asked) for asked in by_query.values()),
        "videos": len({pair.video for pair in pairs}),
        "pairs_with_truth": len(pairs) - len(absent),
        "pairs_absent": len(absent),
        "pairs_absent_with_predictions": sum(bool(pair.predictions) for pair in absent),
        "presence_AUROC": _presence(pairs),
        "predictions": predictions,
        "tied_share": tied / predictions if predictions else 0.0,
    }


def _presence(pairs: Sequence[Pair]) -> float | None:
    """AUROC of the best score for "the query happens in this video"; no prediction = the lowest score."""
    from sklearn.metrics import roc_auc_score

    labels = [bool(pair.truth) for pair in pairs]
    if all(labels) or not any(labels):
        return None
    tops = [max((moment.score for moment in pair.predictions), default=None) for pair in pairs]
    # No prediction is the surest "it does not happen", also beside predictions that score below 0.
    lowest = np.nextafter(min((top for top in tops if top is not None), default=0.0), -np.inf)
    return float(roc_auc_score(labels, [lowest if top is None else top for top in tops]))


def _nan_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over what is a number; NaN where nothing is (which np.nanmean says with a warning)."""
    is_number = ~np.isnan(values)
    count = is_number.sum(axis=axis)
    total = np.where(is_number, values, 0.0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _table(values: Mapping[str, Any], left_out: Mapping[str, int]) -> str:
    shown = ("0.3", "0.5", "0.7", MEAN)
    lines = [f"{'percent':10}" + "".join(f"{limit:>10}" for limit in shown)]
    for name in ("det_mAP", "pair_mAP", "R1", "R5"):
        cells = (values.get(f"{name}@{limit}") for limit in shown)
        lines.append(
            f"{name:10}" + "".join(f"{'' if cell is None else format(100 * cell, '.2f'):>10}" for cell in cells)
        )
    lines.append(f"{'mIoU':10}" + ("" if values["mIoU"] is None else f"{100 * values['mIoU']:>10.2f}"))
    presence = values["presence_AUROC"]
    lines += [
        f"{values['pairs_with_truth']} pairs with truth, {values['queries']} queries, {values['videos']} videos; "
        f"{values['predictions']} predictions, {values['tied_share']:.1%} with tied scores",
        f"{values['pairs_absent']} absent pairs, {values['pairs_absent_with_predictions']} with predictions, "
        f"presence AUROC {'undefined' if presence is None else format(presence, '.3f')}",
        *(f"left out: {count} {reason}" for reason, count in left_out.items()),
    ]
    return "\n".join(lines)


def _judge(predictions: Path, truth: Path, split: str, *, is_json: bool) -> str:
    files = read_files(predictions, truth, split=split)
    values = metrics(localise_pairs(files.pairs))
    return json.dumps({**values, "left_out": files.left_out}) if is_json else _table(values, files.left_out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the metrics of two files as a table in percent or as one JSON object of fractions; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m xclip_module.evaluation.localisation", description=main.__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help=".jsonl: qid, pred_relevant_windows")
    parser.add_argument("--ground-truth", type=Path, required=True, help=".jsonl: qid, query, vid, relevant_windows")
    parser.add_argument("--split", default="", help='only lines whose "split" says so')
    parser.add_argument("--json", action="store_true", help="one JSON object, fractions")
    chosen = parser.parse_args(arguments)
    return print_result(lambda: _judge(chosen.predictions, chosen.ground_truth, chosen.split, is_json=chosen.json))


if __name__ == "__main__":
    sys.exit(main())
