"""Answers of a split to its table: macro, per query, per video, and the bootstrap behind the intervals.

Q queries, V videos, B draws, M samples of a curve.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xclip_module.evaluation.frames import labels_at, pooled_ranking, rank_pair, sample_ap
from xclip_module.evaluation.localisation import Localisation, localise_pairs, metrics, of_query, statistics
from xclip_module.evaluation.segments import clean
from xclip_module.interface import Answer, Pair

_RANKING = ("AUROC", "AUPRC", "prevalence")
_POOLED = tuple(f"{key}_pooled" for key in _RANKING)

# Video -> query -> true segments; a pair that is not there is not annotated.
Truth = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]


class Summary(NamedTuple):
    """What a table needs.

    macro: means over pairs and queries.  queries, videos: the same by name.  replicates: metric -> [B] values under
    the draws, of those macro values that have an interval.
    """

    macro: dict[str, Any]
    queries: dict[str, dict[str, Any]]
    videos: dict[str, dict[str, Any]]
    replicates: dict[str, np.ndarray]


class _PairFrames(NamedTuple):
    """Frame scores of one pair; NaN where undefined."""

    query: str
    video: int
    auroc: float
    auprc: float
    prevalence: float


def summarise(
    answers: Sequence[Answer], truth: Truth, queries: Sequence[str], weights: np.ndarray | None = None
) -> Summary:
    """Frame and segment metrics of a split.

    AUROC: mean over the (video, query) pairs in which the query holds part of the time. AUPRC, prevalence: over those
    in which it holds at all; lift is their ratio. `_pooled`: per query over the samples of all videos, then the mean
    over queries. mAP@0.5 is det_mAP@0.5 under its short name; the other segment keys are those of `localisation`.
    presence_AUROC_samples: does the largest score of a video tell whether the query happens in it at all (the moments'
    own scores, behind presence_AUROC, are standardised in each video and hardly can)? Undefined values are None.

    answers: [V], their `ranking` rows in the order of `queries`.  weights: [B, V] draws of a bootstrap.
    """
    frames = _frames(answers, truth, queries)
    judged = localise_pairs(_pairs(answers, truth, queries))
    rows = {name: _query_row(row, name, answers, truth, frames, judged) for row, name in enumerate(queries)}
    macro = {**_frame_means(frames), **_pooled_means(rows), **_named(metrics(judged))}
    macro["presence_AUROC_samples"] = _presence(answers, truth, queries)
    replicates = {}
    if weights is not None:
        # A localisation has its own order of the videos, and only those with a pair.
        index_of = {answer.video: index for index, answer in enumerate(answers)}
        drawn = weights[:, [index_of[video] for video in judged.videos]]
        replicates = {**_frame_replicates(frames, weights), **_named(statistics(judged, drawn))}
    videos = {answer.video: _video_row(index, answer.video, frames, judged) for index, answer in enumerate(answers)}
    return Summary(macro, rows, videos, replicates)


def _pairs(answers: Sequence[Answer], truth: Truth, queries: Sequence[str]) -> list[Pair]:
    pairs = []
    for answer in answers:
        annotated = truth.get(answer.video, {})
        for name in (name for name in queries if name in annotated):
            segments = clean(annotated[name], unique=True).kept
            moments = clean(answer.moments.get(name, ()), unique=False).kept
            pairs.append(Pair(name, answer.video, tuple(segments), tuple(moments)))
    return pairs


def _frames(answers: Sequence[Answer], truth: Truth, queries: Sequence[str]) -> list[_PairFrames]:
    rows = []
    for index, answer in enumerate(answers):
        for row, name in enumerate(queries):
            if name not in truth.get(answer.video, {}):
                continue
            labels = labels_at(answer.times, truth[answer.video][name])
            ranked = rank_pair(answer.ranking[row], labels)
            precision = ranked.auprc if ranked else sample_ap(answer.ranking[row], labels)
            rows.append(
                _PairFrames(
                    name,
                    index,
                    ranked.auroc if ranked else math.nan,
                    math.nan if precision is None else precision,
                    float(labels.mean()) if labels.any() else math.nan,
                )
            )
    return rows


def _frame_means(frames: Sequence[_PairFrames]) -> dict[str, Any]:
    auroc, auprc = _mean([row.auroc for row in frames]), _mean([row.auprc for row in frames])
    prevalence = _mean([row.prevalence for row in frames])
    lift = None if auprc is None or not prevalence else auprc / prevalence
    pairs = sum(not math.isnan(row.auprc) for row in frames)
    return {"AUROC": auroc, "AUPRC": auprc, "prevalence": prevalence, "lift": lift, "pairs": pairs}


def _frame_replicates(frames: Sequence[_PairFrames], weights: np.ndarray) -> dict[str, np.ndarray]:
    """AUROC, AUPRC and prevalence [B] under the draws: every pair counts as often as its video was drawn."""
    values = np.array([row[2:] for row in frames], float).reshape(-1, 3)
    drawn = weights[:, [row.video for row in frames]]  # [B, pairs]
    defined = ~np.isnan(values)
    count = drawn @ defined
    means = (drawn @ np.where(defined, values, 0.0)) / np.where(count > 0, count, 1)
    means[count == 0] = np.nan
    return {name: means[:, column] for column, name in enumerate(_RANKING)}


def _query_row(
    row: int, name: str, answers: Sequence[Answer], truth: Truth, frames: Sequence[_PairFrames], judged: Localisation
) -> dict[str, Any]:
    annotated = [answer for answer in answers if name in truth.get(answer.video, {})]
    labels = [labels_at(answer.times, truth[answer.video][name]) for answer in annotated]
    pooled = pooled_ranking([answer.ranking[row] for answer in annotated], labels) if annotated else None
    return {
        **_frame_means([pair for pair in frames if pair.query == name]),
        **dict(zip(_POOLED, pooled or (None, None, None), strict=True)),
        **_named(of_query(judged, name)),
        "absent": sum(not truth[answer.video][name] for answer in annotated),
    }


def _presence(answers: Sequence[Answer], truth: Truth, queries: Sequence[str]) -> float | None:
    pairs = [
        (bool(truth[answer.video][name]), answer.ranking[row].max())
        for answer in answers
        for row, name in enumerate(queries)
        if name in truth.get(answer.video, {})
    ]
    labels = np.array([label for label, _ in pairs], bool)
    ranked = rank_pair(np.array([top for _, top in pairs], float), labels) if pairs else None
    return ranked.auroc if ranked else None


def _video_row(index: int, video: str, frames: Sequence[_PairFrames], judged: Localisation) -> dict[str, Any]:
    results = [result for _, row, result in judged.results if judged.videos[row] == video]
    return {
        **_frame_means([pair for pair in frames if pair.video == index]),
        "R1@0.5": _mean([float(result.top1 >= 0.5) for result in results]),
        "mIoU": _mean([result.top1 for result in results]),
    }


def _pooled_means(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {key: _mean([row[key] for row in rows.values() if row[key] is not None]) for key in _POOLED}


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    return {"mAP@0.5": values["det_mAP@0.5"], **values}


def _mean(values: Sequence[float]) -> float | None:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else None
