"""`--check`: everything that a run will need, tried once, and a forecast; nothing is trained and no result written."""

import dataclasses
import datetime
import logging
import shutil
import time
from collections.abc import Iterable

from xclip_module.config import Config, keys
from xclip_module.datasets.video_check import check_videos
from xclip_module.errors import DataError, DiskError
from xclip_module.finetune.log import clock, peak_memory
from xclip_module.finetune.recipe import with_recipe
from xclip_module.finetune.standin import task_of
from xclip_module.finetune.trial import timed, try_training
from xclip_module.interface import Corpus, Video
from xclip_module.probe.fit import learnable
from xclip_module.probe.windows import ProbeData, load_probe_corpus, load_windows, rows_of, scored_config, stacked
from xclip_module.run.launch import Run
from xclip_module.run.progress import Progress
from xclip_module.tasks.localisation import head as heads
from xclip_module.tasks.localisation import judge as outcome
from xclip_module.tasks.localisation import score as assemble
from xclip_module.tasks.retrieval import score as retrieving
from xclip_module.tasks.retrieval import write as searching
from xclip_module.training.linear import fit, make_problem

# A penalty of the middle, and how many the sweep tries.
_TRIAL_PENALTY = 1.0
_PENALTIES = 15

log = logging.getLogger(__name__)


def check_zeroshot(config: Config, run: Run, is_deep: bool) -> None:
    """Config, splits, every video to be scored, weights, and the scores of one video; prints a forecast.

    Raises what a run would raise, but DataError for broken videos only after all have been looked at.
    """
    if retrieving.is_retrieval(config.data):
        _check_search(config, run, is_deep=is_deep)
        return
    corpus, _ = assemble.load_asked(config)
    videos = [video for split in assemble.scored_splits(config, corpus) for video in corpus.of_split(split)]
    _say_data(config, corpus, videos)
    with timed("weights and sentences"):
        setup = assemble.set_up(config, run)
    log.info("weights: %s, %s", setup.model.protocol, setup.precision)
    _check_videos(config, videos, run, is_deep=is_deep)
    first = min(videos, key=lambda video: video.label_seconds)
    only = setup._replace(corpus=_only(corpus, first))
    with timed(f"scores of {first.id}") as spent:
        scored = assemble.score_videos(config, only, run)
        outcome.conclude(config, only, scored)
    lasts = sum(curve.duration for curve in scored.curves)
    # An own recording has no labels that tell its length.
    all_seconds = _seconds(videos) or lasts * len(videos)
    _forecast({"all videos": spent.seconds / lasts * all_seconds}, {}, run, "less where features are stored already")


def _check_search(config: Config, run: Run, *, is_deep: bool) -> None:
    """Annotations, every video of the splits to be scored, weights, and one video against all its split's texts."""
    galleries = [retrieving.load_gallery(config, split) for split in searching.scored_splits(config)]
    for gallery in galleries:
        log.info("data: %s", gallery.split.protocol)
    videos = [video for gallery in galleries for video in retrieving.videos_of(gallery.split)]
    with timed("weights"):
        model = assemble.build_model(config, run.world)
    log.info("weights: %s; frames: %s", model.protocol, retrieving.choose_frames(config, model).protocol)
    _check_videos(config, videos, run, is_deep=is_deep)
    split = galleries[0].split
    others = dict.fromkeys(split.videos[1:], "not looked at")
    only = galleries[0].without(others) if others else galleries[0]
    with timed("one video against its texts") as spent:
        only, video = retrieving.embed_videos(config, model, only, run)
        text = retrieving.embed_texts(config, model, only.split.texts, run.world)
        retrieving.similarity(config, model, text, video, run.world)
    seconds = {"videos": spent.seconds * len(videos)}
    _forecast(seconds, {}, run, "less where clips are stored already, and with several reading threads")


def check_finetune(config: Config, run: Run, is_deep: bool) -> None:
    """Config, splits, every video, weights, a step of the optimizer, a validation, a checkpoint; prints a forecast."""
    task = task_of(config)
    section = with_recipe(config.finetune, task.recipe(), data_name=config.data.name)
    config = dataclasses.replace(config, finetune=section)
    corpus = task.training_corpus()
    videos = list(corpus.videos)
    _say_data(config, corpus, videos)
    # All of them before the first is used, so that one look names every broken one.
    _check_videos(config, videos, run, is_deep=is_deep)
    forecast = try_training(config, run)
    _forecast(forecast.seconds, forecast.size, run, forecast.note)


def check_probe(config: Config, run: Run, is_deep: bool) -> None:
    """Config, splits, every labelled video, weights, the windows of one training video, a fit; prints a forecast."""
    corpus = load_probe_corpus(config)
    config = scored_config(config, corpus)
    videos = [video for video in corpus.videos if video.id in corpus.moments]
    _say_data(config, corpus, videos)
    _check_videos(config, videos, run, is_deep=is_deep)
    with timed("weights"):
        model = assemble.build_model(config, run.world)
    features = heads.choose_features(config, model)
    setup = assemble.probed(config, corpus, model, None, run.world)
    log.info("weights: %s, %s; probed: %s", model.protocol, setup.precision, features)
    labelled = [video for video in corpus.of_split("train") if video.id in corpus.moments]
    first = min(labelled, key=lambda video: video.label_seconds)
    with timed(f"windows of {first.id}") as spent:
        data = load_windows(config, setup._replace(corpus=_only(corpus, first)), features, run)
    seconds = {"features": spent.seconds / data.videos[0].duration * _seconds(videos)}
    if run.world.is_main:
        with timed("a fit of each kind of query"):
            seconds |= {"fits": _try_fits(config, corpus, data, videos)}
    _forecast(seconds, {}, run, "less where features are stored already")


def _try_fits(config: Config, corpus: Corpus, data: ProbeData, videos: list[Video]) -> float:
    """Seconds of a whole sweep on all training windows, from fits to one video's."""
    start = time.monotonic()
    inputs, labels, known = stacked(data.videos)
    for kind in dict.fromkeys(query.kind for query in corpus.queries):
        rows = learnable(labels, known, rows_of(corpus.queries, kind), is_exclusive=kind == "phase")
        if rows:
            own = labels[:, rows], known[:, rows]
            problem = make_problem(inputs, *own, is_exclusive=kind == "phase", is_balanced=config.probe.balance)
            fit(problem, _TRIAL_PENALTY)
    lasts = sum(one.duration for one in data.videos)
    share = max(1.0, _seconds(video for video in videos if video.split == "train") / lasts)
    return _since(start) * share * (1 if config.probe.penalty else _PENALTIES)


def _say_data(config: Config, corpus: Corpus, videos: list[Video]) -> None:
    defaults = keys()
    changed = {name: value for name, value in keys(config).items() if value != defaults[name]}
    log.info("config: %s", ", ".join(f"{name}={value}" for name, value in changed.items()) or "all defaults")
    names = ("train", "val", "test", "all")
    splits = {split: dict.fromkeys(v.id for v in videos if v.split == split) for split in names}
    for split, ids in splits.items():
        twice = [name for other, others in splits.items() if other != split for name in ids if name in others]
        # Of retrieval sets the run itself says so, and goes on.
        if twice and not retrieving.is_retrieval(config.data):
            raise DataError("one video in two splits", corpus.name, ", ".join(twice[:5]), "mend the splits")
    counts = ", ".join(f"{len(ids)} {split}" for split, ids in splits.items() if ids)
    log.info("data: %s; %s", corpus.protocol, counts)
    if not videos:
        raise DataError("no video to check", corpus.name, "none of the splits has one", "--data.root=FOLDER")
    for one in corpus.missing:
        log.warning("missing: %s (%s)", one.id, one.why)


def _check_videos(config: Config, videos: list[Video], run: Run, *, is_deep: bool) -> None:
    # Nothing is resized here.
    reading = assemble.reading_of(config, fps=1.0, size=1)
    problems = []
    start = time.monotonic()
    with Progress(len(videos), name="check", unit="videos", is_shown=run.world.is_main) as progress:
        for video, problem in check_videos(videos, reading, is_deep=is_deep):
            progress.advance(1, video.id)
            if problem:
                problems.append(video.id)
                log.warning("%s: %s", video.id, problem)
    what = "every frame decoded" if is_deep else "opened, length as labelled"
    if problems and not config.data.skip_unreadable:
        shown = ", ".join(problems[:8])
        raise DataError(f"{len(problems)} of {len(videos)} videos cannot be used", "", shown, "mend or remove them")
    log.info("videos: %d of %d fit (%s), %.1f s", len(videos) - len(problems), len(videos), what, _since(start))


def _forecast(seconds: dict[str, float], size: dict[str, int], run: Run, note: str) -> None:
    total = sum(seconds.values())
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=total)
    parts = ", ".join(f"{name} {clock(value)}" for name, value in seconds.items())
    memory, free = peak_memory(run.world.device) / 1e9, shutil.disk_usage(run.folder).free
    log.info("forecast: %s (%s), ends about %s; %s", clock(total), parts, end.strftime("%a %d %b %H:%M UTC"), note)
    log.info("memory: %.2f GB at its peak so far", memory)
    if size:
        named = ", ".join(f"{name} {value / 1e9:.2f} GB" for name, value in size.items())
        log.info("disk: %s; %.2f GB are free", named, free / 1e9)
    if sum(size.values()) > free:
        amounts = f"{sum(size.values()) / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free"
        raise DiskError("no room for this run", run.folder.parent, amounts, "free space, or --run.root=FOLDER")


def _only(corpus: Corpus, video: Video) -> Corpus:
    return corpus._replace(videos=(video,), missing=())


def _seconds(videos: Iterable[Video]) -> float:
    return sum(video.label_seconds for video in videos)


def _since(start: float) -> float:
    return time.monotonic() - start
