"""`--check`: everything that a run will need, tried once, and a forecast; nothing is trained and no result written."""

import contextlib
import datetime
import logging
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch

from xclip_module.config import Config, keys
from xclip_module.errors import DataError, DiskError, WeightsError
from xclip_module.finetune import run as finetuning
from xclip_module.finetune.log import clock, peak_memory
from xclip_module.finetune.recipe import with_recipe
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
from xclip_module.tasks.training_data import forecast_frames, load_clips
from xclip_module.training import checkpoint
from xclip_module.training.linear import fit, make_problem
from xclip_module.video.check import check_videos

# A penalty of the middle, and how many the sweep tries.
_TRIAL_PENALTY = 1.0
_PENALTIES = 15

log = logging.getLogger(__name__)


class _Costs(NamedTuple):
    """Seconds of a step, of validating a unit of video (see `_length`), of a checkpoint; its bytes, and a model's."""

    step: float
    validation: float
    save: float
    checkpoint: int
    model: int


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
    with _timed("weights and sentences"):
        setup = assemble.set_up(config, run)
    log.info("weights: %s, %s", setup.model.protocol, setup.precision)
    _check_videos(config, videos, run, is_deep=is_deep)
    first = min(videos, key=lambda video: video.label_seconds)
    only = setup._replace(corpus=_only(corpus, first))
    with _timed(f"scores of {first.id}") as spent:
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
    with _timed("weights"):
        model = assemble.build_model(config, run.world)
    log.info("weights: %s; frames: %s", model.protocol, retrieving.choose_frames(config, model).protocol)
    _check_videos(config, videos, run, is_deep=is_deep)
    split = galleries[0].split
    others = dict.fromkeys(split.videos[1:], "not looked at")
    only = galleries[0].without(others) if others else galleries[0]
    with _timed("one video against its texts") as spent:
        only, video = retrieving.embed_videos(config, model, only, run)
        text = retrieving.embed_texts(config, model, only.split.texts, run.world)
        retrieving.similarity(config, model, text, video, run.world)
    seconds = {"videos": spent.seconds * len(videos)}
    _forecast(seconds, {}, run, "less where clips are stored already, and with several reading threads")


def check_finetune(config: Config, run: Run, is_deep: bool) -> None:
    """Config, splits, every video, weights, a step of the optimizer, a validation, a checkpoint; prints a forecast.

    Training clips come straight from the videos for it, so that nothing is stored but the frames of one val video.
    """
    config = with_recipe(config)
    corpus = finetuning.kind_of(config).corpus(config)
    videos = list(corpus.videos)
    _say_data(config, corpus, videos)
    # All of them before the first is used, so that one look names every broken one.
    _check_videos(config, videos, run, is_deep=is_deep)
    with _timed("weights, sentences, training videos"):
        training = finetuning.prepare(config, run, is_trial=True)
    log.info("weights: %s, %s", training.model.protocol, training.precision)
    micro = finetuning.micro_batch_size(config, training, run.world)
    step = _try_steps(config, training, micro, run)
    rate = _try_validation(training, run)
    save, size = _try_checkpoint(training, run)
    costs = _Costs(step, rate, save, size, sum(p.numel() * 4 for p in training.model.parameters()))
    _forecast(*_plan(config, training, costs), run, f"{training.total} steps of {config.finetune.batch_size} clips")


def check_probe(config: Config, run: Run, is_deep: bool) -> None:
    """Config, splits, every labelled video, weights, the windows of one training video, a fit; prints a forecast."""
    corpus = load_probe_corpus(config)
    config = scored_config(config, corpus)
    videos = [video for video in corpus.videos if video.id in corpus.moments]
    _say_data(config, corpus, videos)
    _check_videos(config, videos, run, is_deep=is_deep)
    with _timed("weights"):
        model = assemble.build_model(config, run.world)
    features = heads.choose_features(config, model)
    setup = assemble.probed(config, corpus, model, None, run.world)
    log.info("weights: %s, %s; probed: %s", model.protocol, setup.precision, features)
    labelled = [video for video in corpus.of_split("train") if video.id in corpus.moments]
    first = min(labelled, key=lambda video: video.label_seconds)
    with _timed(f"windows of {first.id}") as spent:
        data = load_windows(config, setup._replace(corpus=_only(corpus, first)), features, run)
    seconds = {"features": spent.seconds / data.videos[0].duration * _seconds(videos)}
    if run.world.is_main:
        with _timed("a fit of each kind of query"):
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


def _try_steps(config: Config, training: finetuning.Training, micro: int, run: Run) -> float:
    """Seconds of a step, the second of two: the first warms up. The learning rate is 0, so nothing is trained."""
    trainer, rules = training.trainer, finetuning.make_rules(config, training, micro)
    trainer.factor = lambda step: 0.0
    compute = finetuning.gradients(config, training, run.world, micro, None)
    training.model.train()
    seconds = 0.0
    for batch in load_clips(config, training.data, training.clips, run.world, (0, min(2, training.total))):
        with _timed(f"a step of {len(batch.names)} clips, {micro} in a forward") as spent:
            found = compute(batch, 0)
            norm = trainer.apply(rules, lambda: None)
        seconds = spent.seconds
        log.info("loss %.4f (floor %.4f), gradient norm %.3g", found.loss, found.floor, norm)
    training.model.eval()
    return seconds


def _try_validation(training: finetuning.Training, run: Run) -> float:
    """Seconds per unit of val video."""
    if not training.has_val:
        log.warning("no val split: nothing will choose a best step")
        return 0.0
    with _timed("a validation on one video") as spent:
        training.data.validation.measure(training.val, run)
    return spent.seconds / _length(video for video, _ in training.val) if training.val else 0.0


def _try_checkpoint(training: finetuning.Training, run: Run) -> tuple[float, int]:
    """Seconds and bytes of a checkpoint, which is written, read back, compared and removed."""
    if not run.world.is_main:
        return 0.0, 0
    folder, state = run.folder / "trial", training.trainer.state()
    with _timed("a checkpoint written and read back") as spent:
        path = checkpoint.save(folder, state, step=0, keep=1)
        size = path.stat().st_size
        found = checkpoint.read(path)
    shutil.rmtree(folder)
    same = all(torch.equal(tensor.cpu(), found["model"][name]) for name, tensor in state["model"].items())
    if not same:
        raise WeightsError("a checkpoint reads back as something else", path, attempt="another disk: --run.root=FOLDER")
    return spent.seconds, size


def _plan(config: Config, training: finetuning.Training, costs: _Costs) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds and bytes of the whole run by part."""
    section, steps = config.finetune, training.total
    rules = finetuning.make_rules(config, training, 1)
    validations = 1 + math.ceil(steps / rules.validate_every) if rules.validate_every else 0
    data = training.data
    seconds = {
        "training": costs.step * steps,
        f"{validations} validations": costs.validation * _length(data.validation.videos) * validations,
        "checkpoints": costs.save * steps / section.save_every_steps,
        "final scores": costs.validation * _length(data.scored),
    }
    # Two checkpoints are kept while a third is written; best and last weights.
    size = {"checkpoints": 3 * costs.checkpoint, "weights": 2 * costs.model}
    return seconds, size | forecast_frames(config, data)


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


def _length(videos: Iterable[Video]) -> float:
    """What scoring goes by: seconds, by the labels; videos that are looked at in a few frames count 1."""
    return sum(video.label_seconds or 1.0 for video in videos)


def _since(start: float) -> float:
    return time.monotonic() - start


class _Spent:
    seconds = 0.0


@contextlib.contextmanager
def _timed(what: str) -> Iterator[_Spent]:
    """Says that a part went well and how long it took."""
    spent, start = _Spent(), time.monotonic()
    yield spent
    spent.seconds = _since(start)
    log.info("ok: %s, %.1f s", what, spent.seconds)
