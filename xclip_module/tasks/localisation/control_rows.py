"""What stands beside every score: answers that know no picture, and the truth through the same segmenter."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from xclip_module.evaluation import controls
from xclip_module.evaluation.summary import Summary
from xclip_module.interface import Answer, Corpus, Curve, Moment, Query, Segment, Video
from xclip_module.moments.tracks import SIMILARITY
from xclip_module.tasks.localisation.judging import Judge

PRIOR = "time prior"


def control_rows(judging: Judge, curves: Sequence[Curve], seed: int) -> tuple[dict[str, Any], Summary | None]:
    """Macro row of each control, and the time prior's whole summary; those of training videos only where there are."""
    names, moments = judging.names, judging.corpus.moments
    noise = [controls.random_scores(names, curve.video, len(curve.times), seed) for curve in curves]
    truth = [controls.oracle_scores(names, moments.get(curve.video, {}), curve.times) for curve in curves]
    answers = {
        "random": _of_scores(judging, curves, noise),
        "whole video": [
            _of_moments(curve, {name: [Moment(0.0, curve.duration, 1.0)] for name in names}) for curve in curves
        ],
    }
    prior = None
    if training_videos(judging.corpus):
        learned = [_training_segments(judging.corpus, without=curve.video) for curve in curves]
        both = list(zip(curves, learned, strict=True))
        answers["train mean"] = [
            _of_moments(curve, {name: controls.train_mean(segments[name], curve.duration) for name in names})
            for curve, segments in both
        ]
        usual = [
            np.stack([controls.time_prior(segments[name], curve.times, curve.duration) for name in names])
            for curve, segments in both
        ]
        prior = judging.summary(_of_scores(judging, curves, usual))
    rows = {name: judging.summary(chosen, has_draws=False).macro for name, chosen in answers.items()}
    if prior:
        rows[PRIOR] = prior.macro
    rows["oracle"] = judging.summary(_of_scores(judging, curves, truth), has_draws=False).macro
    return rows, prior


def training_videos(corpus: Corpus) -> list[Video]:
    """Training videos whose labels say when what happens, and how long the video is."""
    return [video for video in corpus.of_split("train") if video.id in corpus.moments and video.label_seconds]


def _of_scores(judging: Judge, curves: Sequence[Curve], scores: Sequence[np.ndarray]) -> list[Answer]:
    """A control that is a curve: it becomes moments as the model's curves do."""
    replaced = [curve._replace(scores=row, background=None) for curve, row in zip(curves, scores, strict=True)]
    return judging.answers(replaced, SIMILARITY)


def _of_moments(curve: Curve, moments: dict[str, list[Any]]) -> Answer:
    """A control that knows segments only: its samples are ranked by whether they lie inside."""
    ranking = np.stack([controls.covered(segments, curve.times) for segments in moments.values()])
    return Answer(curve.video, curve.times, curve.duration, ranking, moments)


def _training_segments(corpus: Corpus, *, without: str) -> dict[str, controls.TrainingTruth]:
    """Query -> its segments and the length of every annotated training video but one, which is to be judged itself."""
    train = [video for video in training_videos(corpus) if video.id != without]
    return {
        query.name: [
            (segments, video.label_seconds)
            for video in train
            if (segments := _annotated(corpus, video, query)) is not None
        ]
        for query in corpus.queries
    }


def _annotated(corpus: Corpus, video: Video, query: Query) -> tuple[Segment, ...] | None:
    """The truth of a pair. In a list of moments most pairs have none; a label file without a class says: absent."""
    segments = corpus.moments[video.id].get(query.name)
    return () if segments is None and query.kind != "free" else segments
