"""`--check`: everything that a run will need, tried once, and a forecast; nothing is trained and no result written."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from xclip_module.config import Config, keys
from xclip_module.errors import DataError
from xclip_module.finetune.loading import load
from xclip_module.probe.corpus import load_probe_data
from xclip_module.run.folder import Run
from xclip_module.run.progress import Progress
from xclip_module.run.timing import forecast, timed
from xclip_module.tasks import task_of
from xclip_module.tasks.weights import announce_weights

if TYPE_CHECKING:
    from xclip_module.interface import Corpus, Video

log = logging.getLogger(__name__)


def check_zeroshot(config: Config, run: Run, is_deep: bool) -> None:
    """Config, splits, every video to be scored, weights, and the scores of one video; prints a forecast.

    Raises what a run would raise, but DataError for broken videos only after all have been looked at.
    """
    task = task_of(config)
    data = task.load()
    corpus = task.scored(data)
    _say_data(config, corpus)
    with timed("weights and sentences"):
        scorer = task.scorer(data, run)
    log.info("weights: %s", scorer.encoder.in_words)
    _check_videos(config, corpus, run, is_deep=is_deep)
    video, alone = task.only(data)
    with timed(f"scores of {video.id}") as spent:
        scores = task.score(alone, scorer, run)
        task.judge(alone, scorer, scores)
    seconds = {"all videos": spent.seconds / _length(video) * sum(map(_length, corpus.videos))}
    forecast(seconds, {}, run, "less where features are stored already")


def check_finetune(config: Config, run: Run, is_deep: bool) -> None:
    """Config, splits, every video, weights, a step of the optimizer, a validation, a checkpoint; prints a forecast.

    Training clips come straight from the videos for it, so that nothing is stored but the frames of one val video.
    """
    loaded = load(config, processes=run.world.size, is_trial=True)
    corpus = loaded.task.training_corpus(loaded.data)
    _say_data(loaded.config, corpus)
    # All of them before the first is used, so that one look names every broken one.
    _check_videos(config, corpus, run, is_deep=is_deep)
    announce_weights(config.model, config.data)
    from xclip_module.finetune.trial import try_training

    try_training(loaded, run)


def check_probe(config: Config, run: Run, is_deep: bool) -> None:
    """Config, splits, every labelled video, weights, the windows of one training video, a fit; prints a forecast."""
    corpus = load_probe_data(config).corpus
    corpus = corpus._replace(videos=tuple(video for video in corpus.videos if video.id in corpus.moments))
    _say_data(config, corpus)
    _check_videos(config, corpus, run, is_deep=is_deep)
    announce_weights(config.model, config.data)
    from xclip_module.probe.fit import try_fits
    from xclip_module.probe.head import load_probe_windows, probed_encoder

    with timed("weights"):
        encoder, features = probed_encoder(config, run)
    log.info("weights: %s; probed: %s", encoder.in_words, features)
    first = min(corpus.of_split("train"), key=_length)
    with timed(f"windows of {first.id}") as spent:
        alone = corpus._replace(videos=(first,), missing=())
        data = load_probe_windows(config, alone, encoder, features, run)
    seconds = {"features": spent.seconds / _length(first) * sum(map(_length, corpus.videos))}
    if run.world.is_main:
        with timed("a fit of each kind of query"):
            share = sum(map(_length, corpus.of_split("train"))) / _length(first)
            seconds["fits"] = try_fits(config.probe, corpus.queries, data.videos) * share
    forecast(seconds, {}, run, "less where features are stored already")


def _say_data(config: Config, corpus: Corpus) -> None:
    defaults = keys()
    changed = {name: value for name, value in keys(config).items() if value != defaults[name]}
    log.info("config: %s", ", ".join(f"{name}={value}" for name, value in changed.items()) or "all defaults")
    splits = {split: {video.id: None for video in corpus.of_split(split)} for split in ("train", "val", "test", "all")}
    for split, ids in splits.items():
        twice = [name for other, others in splits.items() if other != split for name in ids if name in others]
        # Of retrieval sets, whose sentences are not the corpus's, the run itself says so and goes on.
        if twice and corpus.queries:
            raise DataError("one video in two splits", corpus.name, ", ".join(twice[:5]), "mend the splits")
    counts = ", ".join(f"{len(ids)} {split}" for split, ids in splits.items() if ids)
    log.info("data: %s; %s", corpus.protocol, counts)
    if not corpus.videos:
        raise DataError("no video to check", corpus.name, "none of the splits has one", "--data.root=FOLDER")
    for missing in corpus.missing:
        log.warning("missing: %s (%s)", missing.id, missing.why)


def _check_videos(config: Config, corpus: Corpus, run: Run, *, is_deep: bool) -> None:
    from xclip_module.tasks.encode import reading_of
    from xclip_module.video.reading import check_videos

    # Nothing is resized here.
    reading = reading_of(config.data, fps=1.0, size=1, batch=config.model.frames_per_forward)
    broken = []
    start = time.monotonic()
    with Progress(len(corpus.videos), name="check", unit="videos", is_shown=run.world.is_main) as progress:
        for video, problem in check_videos(corpus.videos, reading, is_deep=is_deep):
            progress.advance(1, video.id)
            if problem:
                broken.append(video.id)
                log.warning("%s: %s", video.id, problem)
    count, what = len(corpus.videos), "every frame decoded" if is_deep else "opened, length as labelled"
    if broken and not config.data.skip_unreadable:
        shown = ", ".join(broken[:8])
        raise DataError(f"{len(broken)} of {count} videos cannot be used", "", shown, "mend or remove them")
    log.info("videos: %d of %d fit (%s), %.1f s", count - len(broken), count, what, time.monotonic() - start)


def _length(video: Video) -> float:
    """What scoring goes by: seconds, by the labels; recordings and clips without labels count 1 each."""
    return video.label_seconds or 1.0
