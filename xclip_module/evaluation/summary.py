"""Curves and moments of a split to its table: per query, macro, and the control beside them."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xclip_module.evaluation.frames import labels_at, rank_pair
from xclip_module.evaluation.localisation import Moment, average_precision
from xclip_module.evaluation.scoring import Curve

TIOU = 0.5
Truth = Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]
Moments = Mapping[str, Mapping[str, Sequence[Moment]]]


def summarise(curves: Sequence[Curve], moments: Moments, truth: Truth, queries: Sequence[str]) -> dict[str, Any]:
    """{"macro": row, "queries": {name: row}} with AUROC, AUPRC, prevalence, mAP@0.5 and the number of pairs.

    AUROC, AUPRC and prevalence are means over the (video, query) pairs where they are defined; mAP@0.5 is the mean over
    queries of the ActivityNet AP. Undefined values are None, and a query that happens nowhere is left out of the macro.

    moments, truth: video -> query -> moments, segments; a pair without truth takes no part.
    """
    rows = {name: _query_row(row, name, curves, moments, truth) for row, name in enumerate(queries)}
    pairs = [pair for row in rows.values() for pair in row.pop("_pairs")]
    precisions = [row[f"mAP@{TIOU}"] for row in rows.values() if row[f"mAP@{TIOU}"] is not None]
    return {"macro": _row(pairs, _mean(precisions)), "queries": rows}


def prior_curves(
    curves: Sequence[Curve], queries: Sequence[str], prior: Callable[[str, np.ndarray, float], np.ndarray]
) -> list[Curve]:
    """The same videos and times, scored by a control: prior(query, times, duration) -> [M]."""
    return [
        curve._replace(scores=np.stack([prior(name, curve.times, curve.duration) for name in queries]))
        for curve in curves
    ]


def _query_row(row: int, name: str, curves: Sequence[Curve], moments: Moments, truth: Truth) -> dict[str, Any]:
    known = {curve.video: truth[curve.video][name] for curve in curves if name in truth.get(curve.video, {})}
    pairs = [
        rank_pair(curve.scores[row], labels_at(curve.times, known[curve.video]))
        for curve in curves
        if curve.video in known
    ]
    predictions = [(video, moment) for video in known for moment in moments.get(video, {}).get(name, ())]
    precision = average_precision(predictions, known, TIOU)
    defined = [pair for pair in pairs if pair is not None]
    return {**_row(defined, None if math.isnan(precision) else precision), "_pairs": defined}


def _row(pairs: Sequence[Any], precision: float | None) -> dict[str, Any]:
    means = {name: _mean([getattr(pair, name.lower()) for pair in pairs]) for name in ("AUROC", "AUPRC", "prevalence")}
    return {**means, f"mAP@{TIOU}": precision, "pairs": len(pairs)}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
