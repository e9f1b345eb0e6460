"""From curves to numbers: answers under every track, the controls beside them, what metrics.json holds."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xclip_module.config import Config, EvalConfig
from xclip_module.evaluation import controls
from xclip_module.evaluation.bootstrap import draw_weights, intervals, paired_difference
from xclip_module.evaluation.frames import frame_pooled_map, labels_at, video_first_map
from xclip_module.evaluation.phases import phase_metrics
from xclip_module.evaluation.summary import Summary, summarise
from xclip_module.interface import Answer, Corpus, Curve, Query, Question, Segment, Video
from xclip_module.moments.answers import answer, describe
from xclip_module.moments.tracks import SIMILARITY, TEMPORAL
from xclip_module.reporting.training_facts import kept_step
from xclip_module.tasks.localisation.score import Scored, Setup, available_tracks, scored_splits

PRIOR = "time prior"


class Outcome(NamedTuple):
    """What a run found.

    metrics: what metrics.json holds.  answers: track -> one a video.  replicates: "<split>/<track>/<metric>" -> [B].
    """

    metrics: dict[str, Any]
    answers: dict[str, list[Answer]]
    replicates: dict[str, np.ndarray]


class _Judge(NamedTuple):
    """What every row of a split's table is made from."""

    corpus: Corpus
    section: EvalConfig
    stride: float
    weights: np.ndarray | None

    @property
    def names(self) -> list[str]:
        return [query.name for query in self.corpus.queries]

    def answers(self, curves: Iterable[Curve], track: str) -> list[Answer]:
        questions = [Question(query.name, query.kind) for query in self.corpus.queries]
        return [
            answer(curve, questions, track=track, stride=self.stride, section=self.section, orders=self.corpus.orders)
            for curve in curves
        ]

    def summary(self, answers: Sequence[Answer], *, has_draws: bool = True) -> Summary:
        return summarise(answers, self.corpus.moments, self.names, self.weights if has_draws else None)


def conclude(
    config: Config,
    setup: Setup,
    scored: Scored,
    *,
    title: str = "",
    training: Mapping[str, Any] | None = None,
    probe: Mapping[str, Any] | None = None,
) -> Outcome:
    """Answers of all videos under every track, and per split the metrics with controls and intervals.

    title: of the report, before the data set's name; empty = what scored.  training, probe: how the scored weights, or
    the head, were trained, for metrics.json and the report; their keys are listed in `reporting.training_facts`
    and `reporting.probe_facts`.
    """
    corpus, stride = setup.corpus, setup.sampling.stride_seconds
    judge = _Judge(corpus, config.eval, stride, None)
    tracks = available_tracks(corpus, has_temporal=scored.temporal is not None)
    answers = {track: judge.answers(scored.curves, track) for track in tracks if track != TEMPORAL}
    if scored.temporal is not None:
        answers[TEMPORAL] = judge.answers(scored.temporal, SIMILARITY)
    splits: dict[str, Any] = {}
    replicates: dict[str, np.ndarray] = {}
    for split in scored_splits(config, corpus) if corpus.moments else ():
        result, drawn = _split(config, setup, scored, split, answers)
        splits[split] = result
        replicates |= {f"{split}/{name}": values for name, values in drawn.items()}
    title = title or ("Linear probe" if setup.probe else "Zero-shot localisation")
    metrics = {**_protocol(config, setup, title, training), "skipped": scored.skipped, "splits": splits}
    if probe is not None:
        metrics["probe"] = dict(probe)
    return Outcome(metrics, answers, replicates)


def _protocol(config: Config, setup: Setup, title: str, training: Mapping[str, Any] | None) -> dict[str, Any]:
    corpus, stride = setup.corpus, setup.sampling.stride_seconds
    draws = config.eval.bootstrap
    is_trained = training is not None and kept_step(training) > 0
    tuned = ", fine-tuned" if is_trained else ""
    weights = f"{config.model.weights}{tuned} ({setup.model.digest()[:12]})"
    return {
        "title": f"{title}: {corpus.name}",
        "untrained": setup.is_untrained and not is_trained,
        "track": config.eval.track,
        "protocol": {
            "data": corpus.protocol,
            "model": setup.model.protocol,
            "weights": weights,
            **({"head": setup.probe.protocol} if setup.probe else {}),
            "clips": "{:g} s, {} frames, every {:g} s".format(*setup.sampling),
            "picture": f"{setup.model.picture.size} px, crop {config.data.crop}",
            "precision": setup.precision,
            "track": config.eval.track,
            "segments": describe(config.eval, stride, [query.kind for query in corpus.queries]),
            "background": config.eval.background or "none",
            "controls": f"time prior and train mean from the labels of {len(_train(corpus)) or 'no'} training videos",
            "intervals": f"95 %, {draws} draws of videos, seed {config.run.seed}" if draws else "none",
        },
        **({} if training is None else {"training": dict(training)}),
    }


def _split(
    config: Config, setup: Setup, scored: Scored, split: str, answers: Mapping[str, Sequence[Answer]]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What metrics.json holds of one split, and "<track>/<metric>" -> [B]."""
    corpus, chosen = setup.corpus, config.eval.track
    ids = {video.id for video in corpus.of_split(split)} | {one.id for one in corpus.missing if one.split == split}
    curves = [curve for curve in scored.curves if curve.video in ids]
    # One video drawn again and again says nothing about others.
    draws = config.eval.bootstrap if len(curves) > 1 else 0
    weights = draw_weights(len(curves), draws, config.run.seed) if draws else None
    judge = _Judge(corpus, config.eval, setup.sampling.stride_seconds, weights)
    own = {track: [one for one in found if one.video in ids] for track, found in answers.items()}
    tables = {track: judge.summary(found) for track, found in own.items()}
    rows, prior = _controls(judge, curves, config.run.seed)
    main = tables[chosen]
    result = {
        "videos": len(curves),
        "ids": [curve.video for curve in curves],
        "truth": _truth_digest(corpus, [curve.video for curve in curves]),
        "skipped": {name: why for name, why in scored.skipped.items() if name in ids},
        "macro": main.macro,
        "intervals": intervals(main.replicates),
        "queries": main.queries,
        "per_video": main.videos,
        "tracks": {track: _track(table, own[track], corpus) for track, table in tables.items()},
        "controls": rows,
        "minus_time_prior": _difference(prior.replicates, main.replicates) if prior else {},
        "prompt_sets": _prompt_sets(judge, scored, ids, chosen),
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


def _controls(judge: _Judge, curves: Sequence[Curve], seed: int) -> tuple[dict[str, Any], Summary | None]:
    """Macro row of each control, and the time prior's whole summary; those of training videos only where there are."""
    names, moments = judge.names, judge.corpus.moments
    noise = [
        one._replace(scores=controls.random_scores(names, one.video, len(one.times), seed), background=None)
        for one in curves
    ]
    truth = [
        one._replace(scores=controls.oracle_scores(names, moments.get(one.video, {}), one.times), background=None)
        for one in curves
    ]
    found = {
        "random": judge.answers(noise, SIMILARITY),
        "whole video": [_blind(one, {name: controls.whole_video(one.duration) for name in names}) for one in curves],
    }
    prior = None
    if _train(judge.corpus):
        others = [_training(judge.corpus, without=one.video) for one in curves]
        means = [
            {name: controls.train_mean(known[name], one.duration) for name in names}
            for one, known in zip(curves, others, strict=True)
        ]
        found["train mean"] = [_blind(*both) for both in zip(curves, means, strict=True)]
        when = [
            one._replace(
                scores=np.stack([controls.time_prior(known[name], one.times, one.duration) for name in names]),
                background=None,
            )
            for one, known in zip(curves, others, strict=True)
        ]
        prior = judge.summary(judge.answers(when, SIMILARITY))
    rows = {name: judge.summary(answers, has_draws=False).macro for name, answers in found.items()}
    if prior:
        rows[PRIOR] = prior.macro
    rows["oracle"] = judge.summary(judge.answers(truth, SIMILARITY), has_draws=False).macro
    return rows, prior


def _training(corpus: Corpus, *, without: str) -> dict[str, controls.TrainingTruth]:
    """Query -> its segments and the length of every annotated training video but one, which is to be judged itself."""
    train = [video for video in _train(corpus) if video.id != without]
    return {
        query.name: [
            (found, video.label_seconds) for video in train if (found := _known(corpus, video, query)) is not None
        ]
        for query in corpus.queries
    }


def _known(corpus: Corpus, video: Video, query: Query) -> tuple[Segment, ...] | None:
    """The truth of a pair. In a list of moments most pairs have none; a label file without a class says: absent."""
    found = corpus.moments[video.id].get(query.name)
    return () if found is None and query.kind != "free" else found


def _train(corpus: Corpus) -> list[Video]:
    """Training videos whose labels say when what happens, and how long the video is."""
    return [video for video in corpus.of_split("train") if video.id in corpus.moments and video.label_seconds]


def _blind(curve: Curve, moments: dict[str, list[Any]]) -> Answer:
    """A control that knows segments only: its samples are ranked by whether they lie inside."""
    ranking = np.stack([controls.covered(found, curve.times) for found in moments.values()])
    return Answer(curve.video, curve.times, curve.duration, ranking, moments)


def _difference(prior: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: paired_difference(prior[name], own[name]) for name in ("AUROC", "AUPRC", "mAP@0.5") if name in own}


def _phases(answers: Sequence[Answer], corpus: Corpus) -> dict[str, Any]:
    """Phase recognition at 1 sample a second by the largest ranking score; empty without a set of phases."""
    rows = [row for row, query in enumerate(corpus.queries) if query.kind == "phase"]
    truth, predicted = [], []
    for one in answers:
        known = corpus.moments.get(one.video, {})
        seconds = np.arange(int(one.duration)) + 0.5
        labels = np.stack([labels_at(seconds, known.get(corpus.queries[row].name, ())) for row in rows or [0]])
        is_known = labels.any(axis=0)
        nearest = np.minimum(np.searchsorted(one.times, seconds), len(one.times) - 1)
        before = np.maximum(nearest - 1, 0)
        closer = np.where(seconds - one.times[before] < one.times[nearest] - seconds, before, nearest)
        if len(rows) > 1 and is_known.any():
            truth.append(labels.argmax(axis=0)[is_known])
            predicted.append(one.ranking[rows][:, closer].argmax(axis=0)[is_known])
    return phase_metrics(truth, predicted, phases=len(rows)) if truth else {}


def _tools(answers: Sequence[Answer], corpus: Corpus) -> dict[str, Any]:
    """Tool presence: EndoNet's mAP over all frames, CholecT50's video by video, each tool's AP; empty without tools."""
    rows = [row for row, query in enumerate(corpus.queries) if query.kind == "tool"]
    names = [corpus.queries[row].name for row in rows]
    own = [one for one in answers if set(names) <= set(corpus.moments.get(one.video, {}))]
    if not rows or not own:
        return {}
    labels = [np.stack([labels_at(one.times, corpus.moments[one.video][name]) for name in names]) for one in own]
    rankings = [one.ranking[rows] for one in own]
    found, video_first = frame_pooled_map(rankings, labels), video_first_map(rankings, labels)
    means = {"tool/mAP": found.mean, "tool/mAP_video_first": video_first.mean}
    return {**means, **{f"tool/AP/{name}": ap for name, ap in zip(names, found.per_query, strict=True)}}


def _prompt_sets(judge: _Judge, scored: Scored, ids: set[str], track: str) -> dict[str, Any]:
    """Macro row of each further prompt set, and mean and range of their headline numbers."""
    rows = {}
    for name, curves in scored.sets.items():
        answers = judge.answers([curve for curve in curves if curve.video in ids], track)
        rows[name] = judge.summary(answers, has_draws=False).macro
    if not rows:
        return {}
    spread = {}
    for key in ("AUROC", "AUPRC", "mAP@0.5"):
        values = [row[key] for row in rows.values() if row[key] is not None]
        spread[key] = {"mean": float(np.mean(values)), "low": min(values), "high": max(values)} if values else None
    return {"sets": rows, "spread": spread}
