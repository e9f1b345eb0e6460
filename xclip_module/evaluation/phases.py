"""Phase recognition: accuracy, precision, recall, Jaccard and F1, strict and with M2CAI's relaxed boundaries.

V videos, F samples of a video, P phases; a cell is one (video, phase). All scores are fractions.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Convention = Literal["A", "B"]

# Procedures for which M2CAI's relaxed boundaries are defined: Cholec80 and M2CAI16-workflow.
RELAXED_PHASES = (7, 8)


class PhaseScores(NamedTuple):
    """accuracy: [V]; the others: [V, P], NaN where the cell is left out. M2CAI's script knows no F1."""

    accuracy: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    jaccard: np.ndarray
    F1: np.ndarray | None = None


def phase_metrics(
    truth: Sequence[np.ndarray],
    predicted: Sequence[np.ndarray],
    *,
    phases: int,
    fps: float = 1.0,
    convention: Convention = "B",
) -> dict[str, float | None]:
    """Every phase recognition score of a split, flat for metrics.json; None where it is undefined.

    "phase/accuracy", "phase/accuracy_sd": mean and sd over videos.
    "phase/X" for X of precision, recall, jaccard, F1: per phase over videos, then over phases.
    "phase/X_sd_phases": sd over phases, which published tables print as +- for all but accuracy.
    "phase/per_video/X", "phase/per_video/X_sd": per video over phases, then mean and sd over videos; under convention B
    these are the macro scores of SurgVLP and PeskaVLP.
    "phase/relaxed_fixed/...", "phase/relaxed_as_published/...": the same keys from `relaxed_scores`, without F1; only
    where `phases` is one of RELAXED_PHASES.

    fps: samples per second.  The others: as in `strict_scores`; the convention leaves accuracy and the relaxed scores
    alone.
    """
    rows = _rows("phase", strict_scores(truth, predicted, phases=phases, convention=convention))
    if phases in RELAXED_PHASES:
        for name, as_published in (("fixed", False), ("as_published", True)):
            scores = relaxed_scores(truth, predicted, phases=phases, fps=fps, as_published=as_published)
            rows |= _rows(f"phase/relaxed_{name}", scores)
    return rows


def strict_scores(
    truth: Sequence[np.ndarray], predicted: Sequence[np.ndarray], *, phases: int, convention: Convention = "B"
) -> PhaseScores:
    """Scores of every cell, sample by sample; an undefined score of a cell that counts is 0.

    truth, predicted: per video [F] integers 0 to phases - 1.
    convention: "B" leaves a cell out only where its phase is neither annotated nor predicted in that video, which is
    scikit-learn's macro over the labels that occur (zero-shot scripts of SurgVLP and PeskaVLP, and AutoLaparo's). "A"
    leaves it out wherever it is not annotated, so that seeing a phase where there is none costs that phase nothing;
    never lower than B, only to compare with tables that used it.

    >>> strict_scores([np.array([0, 0, 1, 1])], [np.array([0, 2, 1, 1])], phases=4).F1.round(3)
    array([[0.667, 1.   , 0.   ,   nan]])
    """
    if convention not in ("A", "B"):
        raise ValueError(f"convention {convention!r}; expected 'A' or 'B'")
    truth, predicted = _checked(truth, predicted, phases)
    annotated, claimed = _counts(truth, phases), _counts(predicted, phases)  # [V, P]
    hits = _counts([true[true == guess] for true, guess in zip(truth, predicted, strict=True)], phases)
    counts = annotated > 0 if convention == "A" else (annotated > 0) | (claimed > 0)
    precision, recall, jaccard, f1 = (
        np.where(counts, part / np.maximum(whole, 1), np.nan)
        for part, whole in [
            (hits, claimed),
            (hits, annotated),
            (hits, annotated + claimed - hits),
            (2 * hits, annotated + claimed),
        ]
    )
    return PhaseScores(hits.sum(axis=1) / annotated.sum(axis=1), precision, recall, jaccard, f1)


def relaxed_scores(
    truth: Sequence[np.ndarray],
    predicted: Sequence[np.ndarray],
    *,
    phases: int,
    fps: float = 1.0,
    boundary_seconds: float = 10.0,
    as_published: bool = False,
) -> PhaseScores:
    """M2CAI's scores, forgiving confusion with a neighbouring phase close to the annotated boundaries.

    After the start of an annotated run the previous phase is right too (in the last two phases: the previous two), and
    before its end the next phase (in the last four: the next two). True positives of a phase are the right samples
    among all annotated or predicted as it. They include samples of other phases, so precision and recall are cut at 1.
    A cell whose phase is not annotated is left out. Precision of a phase that is never predicted is left out too, or is
    1 if the boundaries forgive a sample.

    truth, predicted: per video [F] integers 0 to phases - 1.  fps: samples per second.
    as_published: look for the next phase in the last seconds of a run, but forgive the same places in its *first*
    seconds, as the released script does: MATLAB applies a short mask from the front of an array. Only to compare with
    old tables; a true early transition is then not forgiven and a false sample at the start of the run may be.
    Source: M2CAI challenge 2016, Evaluate.m and Main.m as distributed with YuemingJin/TMRNet (code/eval); the slip is
    reported in its issue 8 and in Funke et al. 2023 (arXiv 2305.13961).
    """
    truth, predicted = _checked(truth, predicted, phases)
    if phases not in RELAXED_PHASES:
        raise ValueError(f"relaxed boundaries for {phases} phases; they are defined for {RELAXED_PHASES}")
    if not (fps > 0 and boundary_seconds >= 0):
        raise ValueError(f"fps {fps}, boundary_seconds {boundary_seconds}; expected above 0, at least 0")
    samples = round(boundary_seconds * fps)
    accuracy, cells = [], []
    for true, guess in zip(truth, predicted, strict=True):
        right = _right(true, guess, samples, phases=phases, as_published=as_published)
        accuracy.append(right.mean())
        cells.append([_relaxed_cell(true == phase, guess == phase, right) for phase in range(phases)])
    return PhaseScores(np.array(accuracy), *np.moveaxis(np.array(cells), -1, 0))


def over_videos(cells: np.ndarray) -> np.ndarray:
    """[P] mean of each phase over the videos [V, P] where its cell counts; NaN for a phase without any.

    >>> over_videos(np.array([[1.0, np.nan], [0.5, np.nan]]))
    array([0.75,  nan])
    """
    kept = (column[~np.isnan(column)] for column in cells.T)
    return np.array([column.mean() if len(column) else np.nan for column in kept])


def over_phases(cells: np.ndarray) -> np.ndarray:
    """[V] mean of each video over the phases [V, P] whose cell counts."""
    return over_videos(cells.T)


def _counts(labels: Sequence[np.ndarray], phases: int) -> np.ndarray:
    """[V, P] samples of each phase in each video."""
    return np.stack([np.bincount(video, minlength=phases) for video in labels])


def _right(truth: np.ndarray, predicted: np.ndarray, samples: int, *, phases: int, as_published: bool) -> np.ndarray:
    """[F] bool: samples that count as right, exactly or because of a boundary nearby."""
    ahead = predicted - truth
    right = ahead == 0
    changes = np.flatnonzero(np.diff(truth)) + 1
    for start, end in zip([0, *changes], [*changes, len(truth)], strict=True):
        phase = truth[start]
        width = min(samples, end - start)
        head, tail = slice(start, start + width), slice(end - width, end)
        late = np.isin(ahead[head], (-1, -2) if phase >= phases - 2 else (-1,))
        early = np.isin(ahead[tail], (1, 2) if phase >= phases - 4 else (1,))
        right[head] |= late
        right[head if as_published else tail] |= early
    return right


def _relaxed_cell(annotated: np.ndarray, claimed: np.ndarray, right: np.ndarray) -> tuple[float, float, float]:
    """Precision, recall, Jaccard of one cell; annotated, claimed, right: [F] bool."""
    if not annotated.any():
        return np.nan, np.nan, np.nan
    either = annotated | claimed
    hits = right[either].sum()
    # Never predicted: MATLAB gets 0/0, which its nanmean skips, or infinity, which it cuts at 100 %.
    precision = min(1.0, hits / claimed.sum()) if claimed.any() else (1.0 if hits else np.nan)
    return precision, min(1.0, hits / annotated.sum()), hits / either.sum()


def _rows(prefix: str, scores: PhaseScores) -> dict[str, float | None]:
    rows = _average(f"{prefix}/accuracy", "sd", scores.accuracy)
    for name, cells in scores._asdict().items():
        if name != "accuracy" and cells is not None:
            rows |= _average(f"{prefix}/{name}", "sd_phases", over_videos(cells))
            rows |= _average(f"{prefix}/per_video/{name}", "sd", over_phases(cells))
    return rows


def _average(name: str, suffix: str, values: np.ndarray) -> dict[str, float | None]:
    """Mean and sample standard deviation (ddof 1); None where there is nothing to average, or too little."""
    kept = values[~np.isnan(values)]
    mean, sd = float(kept.mean()) if len(kept) else None, float(kept.std(ddof=1)) if len(kept) > 1 else None
    return {name: mean, f"{name}_{suffix}": sd}


def _checked(
    truth: Sequence[np.ndarray], predicted: Sequence[np.ndarray], phases: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The same labels as int64: the difference of two unsigned ones would wrap around."""
    if not len(truth) or len(truth) != len(predicted):
        counts = f"{len(truth)} annotated videos, {len(predicted)} predicted"
        raise ValueError(f"{counts}; expected equal numbers, at least one")
    for video, (true, guess) in enumerate(zip(truth, predicted, strict=True)):
        _check_labels(true, phases, f"video {video}: truth")
        _check_labels(guess, phases, f"video {video}: prediction")
        if len(true) != len(guess):
            raise ValueError(f"video {video}: {len(true)} annotated samples, {len(guess)} predicted; expected equal")
    return [part.astype(np.int64) for part in truth], [part.astype(np.int64) for part in predicted]


def _check_labels(labels: np.ndarray, phases: int, where: str) -> None:
    if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"{where} is {labels.dtype} {labels.shape}; expected integers, one a sample, at least one")
    if labels.min() < 0 or labels.max() >= phases:
        raise ValueError(f"{where} holds labels {labels.min()} to {labels.max()}; expected 0 to {phases - 1}")
