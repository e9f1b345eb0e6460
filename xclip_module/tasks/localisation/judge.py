"""From curves to numbers: answers under every track, the controls beside them, what metrics.json holds."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xclip_module.config import EvalConfig
from xclip_module.evaluation import controls
from xclip_module.evaluation.bootstrap import draw_weights, intervals, paired_difference
from xclip_module.evaluation.frames import frame_pooled_map, labels_at, video_first_map
from xclip_module.evaluation.phases import phase_metrics
from xclip_module.evaluation.summary import Summary, summarise
from xclip_module.interface import Answer, Corpus, Curve, Moment, Query, Question, Segment, Video
from xclip_module.moments.answers import answer as answer_of
from xclip_module.moments.answers import describe
from xclip_module.moments.tracks import SIMILARITY, TEMPORAL
from xclip_module.reporting.training_facts import kept_step
from xclip_module.tasks.localisation.load import LocalisationData, available_tracks
from xclip_module.tasks.localisation.score import LocalisationScores
from xclip_module.tasks.localisation.scorers import Scorer

_HEADLINES = ("AUROC", "AUPRC", "mAP@0.5")


class LocalisationResults(NamedTuple):
    """What a run says.

    metrics: what metrics.json holds.  answers: track -> one a video.  replicates: "<split>/<track>/<metric>" -> [B].
    """

    metrics: dict[str, Any]
    answers: dict[str, list[Answer]]
    replicates: dict[str, np.ndarray]


class Judge(NamedTuple):
    """Curves to answers, and answers to a summary, by the rules of one run.

    stride: seconds between two samples of a curve.  weights: [B, V] draws of a bootstrap over the videos.
    """

    corpus: Corpus
    section: EvalConfig
    stride: float
    weights: np.ndarray | None = None

    @property
    def names(self) -> list[str]:
        """Of the queries, in their order."""
        return [query.name for query in self.corpus.queries]

    def answers(self, curves: Iterable[Curve], track: str) -> list[Answer]:
        """The answers of each video under a track."""
        questions = [Question(query.name, query.kind) for query in self.corpus.queries]
        orders = self.corpus.orders
        return [
            answer_of(curve, questions, track=track, stride=self.stride, section=self.section, orders=orders)
            for curve in curves
        ]

    def summary(self, answers: Sequence[Answer], *, has_draws: bool = True) -> Summary:
        """The numbers of some videos' answers."""
        return summarise(answers, self.corpus.moments, self.names, self.weights if has_draws else None)


def judge(
    loaded: LocalisationData,
    scorer: Scorer,
    scores: LocalisationScores,
    section: EvalConfig,
    *,
    weights: str,
    crop: str,
    seed: int,
) -> LocalisationResults:
    """Answers of all videos under every track, and per split the metrics with controls and intervals.

    weights, crop: as configured, for the protocol.  seed: of what is drawn.
    """
    corpus = loaded.corpus
    judging = Judge(corpus, section, scorer.encoder.sampling.stride_seconds)
    tracks = available_tracks(corpus, has_temporal=scores.temporal is not None)
    answers = {track: judging.answers(scores.curves, track) for track in tracks if track != TEMPORAL}
    if scores.temporal is not None:
        answers[TEMPORAL] = judging.answers(scores.temporal, SIMILARITY)
    splits: dict[str, Any] = {}
    replicates: dict[str, np.ndarray] = {}
    for split in loaded.splits if corpus.moments else ():
        result, drawn = _split(judging, scores, split, answers, seed)
        splits[split] = result
        replicates |= {f"{split}/{name}": values for name, values in drawn.items()}
    protocol = _protocol(judging, scorer, weights=weights, crop=crop, seed=seed)
    metrics = {**protocol, "skipped": scores.skipped, "splits": splits}
    if scorer.origin.probe is not None:
        metrics["probe"] = scorer.origin.probe
    return LocalisationResults(metrics, answers, replicates)


def _protocol(judging: Judge, scorer: Scorer, *, weights: str, crop: str, seed: int) -> dict[str, Any]:
    """How the numbers came about, for metrics.json and the report."""
    corpus, section, encoder, training = judging.corpus, judging.section, scorer.encoder, scorer.origin.training
    draws = section.bootstrap
    is_trained = training is not None and kept_step(training) > 0
    tuned = ", fine-tuned" if is_trained else ""
    trained_on = f"{len(training_videos(corpus)) or 'no'} training videos"
    return {
        "title": f"{scorer.title}: {corpus.name}",
        "untrained": scorer.is_untrained and not is_trained,
        "track": section.track,
        "protocol": {
            "data": corpus.protocol,
            "model": encoder.model.protocol,
            "weights": f"{weights}{tuned} ({encoder.model.digest()[:12]})",
            **({"head": scorer.head_protocol} if scorer.head_protocol else {}),
            "clips": "{:g} s, {} frames, every {:g} s".format(*encoder.sampling),
            "picture": f"{encoder.model.picture.size} px, crop {crop}",
            "precision": encoder.precision,
            "track": section.track,
            "segments": describe(section, judging.stride, [query.kind for query in corpus.queries]),
            "background": section.background or "none",
            "controls": f"time prior and train mean from the labels of {trained_on}",
            "intervals": f"95 %, {draws} draws of videos, seed {seed}" if draws else "none",
        },
        **({} if training is None else {"training": training}),
    }


def _split(
    judging: Judge, scores: LocalisationScores, split: str, answers: Mapping[str, Sequence[Answer]], seed: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What metrics.json holds of one split, and "<track>/<metric>" -> [B]."""
    corpus, section = judging.corpus, judging.section
    missing = {video.id for video in corpus.missing if video.split == split}
    ids = {video.id for video in corpus.of_split(split)} | missing
    curves = [curve for curve in scores.curves if curve.video in ids]
    # One video drawn again and again says nothing about others.
    draws = section.bootstrap if len(curves) > 1 else 0
    judging = judging._replace(weights=draw_weights(len(curves), draws, seed) if draws else None)
    of_split = {track: [answer for answer in every if answer.video in ids] for track, every in answers.items()}
    tables = {track: judging.summary(chosen) for track, chosen in of_split.items()}
    rows, prior = control_rows(judging, curves, seed)
    main = tables[section.track]
    result = {
        "videos": len(curves),
        "ids": [curve.video for curve in curves],
        "truth": _truth_digest(corpus, [curve.video for curve in curves]),
        "skipped": {name: why for name, why in scores.skipped.items() if name in ids},
        "macro": main.macro,
        "intervals": intervals(main.replicates),
        "queries": main.queries,
        "per_video": main.videos,
        "tracks": {track: _track(table, of_split[track], corpus) for track, table in tables.items()},
        "controls": rows,
        "minus_time_prior": {
            name: paired_difference(prior.replicates[name], main.replicates[name])
            for name in _HEADLINES
            if prior and name in main.replicates
        },
        "prompt_sets": _prompt_sets(judging, scores, ids),
    }
    drawn = {f"{track}/{name}": values for track, table in tables.items() for name, values in table.replicates.items()}
    return result, drawn


def _truth_digest(corpus: Corpus, videos: Sequence[str]) -> str:
    """Twelve hex digits that change with any segment: the split's own hash knows only which videos there are."""
    truth = {video: {name: list(spans) for name, spans in corpus.moments.get(video, {}).items()} for video in videos}
    return hashlib.sha256(json.dumps(truth, sort_keys=True).encode()).hexdigest()[:12]


def _track(table: Summary, answers: Sequence[Answer], corpus: Corpus) -> dict[str, Any]:
    return {
        "macro": table.macro,
        "intervals": intervals(table.replicates),
        "phases": _phases(answers, corpus),
        "tools": _tools(answers, corpus),
    }


def _phases(answers: Sequence[Answer], corpus: Corpus) -> dict[str, Any]:
    """Phase recognition at 1 sample a second by the largest ranking score; empty without a set of phases."""
    rows = [row for row, query in enumerate(corpus.queries) if query.kind == "phase"]
    truth, predicted = [], []
    for answer in answers if len(rows) > 1 else ():
        segments = corpus.moments.get(answer.video, {})
        seconds = np.arange(int(answer.duration)) + 0.5
        labels = np.stack([labels_at(seconds, segments.get(corpus.queries[row].name, ())) for row in rows])
        is_labelled = labels.any(axis=0)
        if is_labelled.any():
            nearest = _nearest(answer.times, seconds)
            truth.append(labels.argmax(axis=0)[is_labelled])
            predicted.append(answer.ranking[rows][:, nearest].argmax(axis=0)[is_labelled])
    return phase_metrics(truth, predicted, phases=len(rows)) if truth else {}


def _nearest(times: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Index of the sample nearest to each second; of two at the same distance the later one."""
    after = np.minimum(np.searchsorted(times, seconds), len(times) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(seconds - times[before] < times[after] - seconds, before, after)


def _tools(answers: Sequence[Answer], corpus: Corpus) -> dict[str, Any]:
    """Tool presence: EndoNet's mAP over all frames, CholecT50's video by video, each tool's AP; empty without tools."""
    rows = [row for row, query in enumerate(corpus.queries) if query.kind == "tool"]
    names = [corpus.queries[row].name for row in rows]
    labelled = [answer for answer in answers if set(names) <= set(corpus.moments.get(answer.video, {}))]
    if not rows or not labelled:
        return {}
    truth = [(answer.times, corpus.moments[answer.video]) for answer in labelled]
    labels = [np.stack([labels_at(times, moments[name]) for name in names]) for times, moments in truth]
    rankings = [answer.ranking[rows] for answer in labelled]
    pooled, video_first = frame_pooled_map(rankings, labels), video_first_map(rankings, labels)
    means = {"tool/mAP": pooled.mean, "tool/mAP_video_first": video_first.mean}
    return {**means, **{f"tool/AP/{name}": ap for name, ap in zip(names, pooled.per_query, strict=True)}}


def _prompt_sets(judging: Judge, scores: LocalisationScores, ids: set[str]) -> dict[str, Any]:
    """Macro row of each further prompt set, and mean and range of their headline numbers."""
    rows = {}
    for name, curves in scores.prompt_sets.items():
        answers = judging.answers([curve for curve in curves if curve.video in ids], judging.section.track)
        rows[name] = judging.summary(answers, has_draws=False).macro
    if not rows:
        return {}
    spread = {}
    for key in _HEADLINES:
        values = [row[key] for row in rows.values() if row[key] is not None]
        spread[key] = {"mean": float(np.mean(values)), "low": min(values), "high": max(values)} if values else None
    return {"sets": rows, "spread": spread}


def control_rows(judging: Judge, curves: Sequence[Curve], seed: int) -> tuple[dict[str, Any], Summary | None]:
    """Macro row of each control, and the time prior's whole summary; those of training videos only where there are.

    Answers that know no picture, and the truth through the same segmenter.
    """
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
        rows["time prior"] = prior.macro
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
            (spans, video.label_seconds) for video in train if (spans := _annotated(corpus, video, query)) is not None
        ]
        for query in corpus.queries
    }


def _annotated(corpus: Corpus, video: Video, query: Query) -> tuple[Segment, ...] | None:
    """The truth of a pair. In a list of moments most pairs have none; a label file without a class says: absent."""
    segments = corpus.moments[video.id].get(query.name)
    return () if segments is None and query.kind != "free" else segments
