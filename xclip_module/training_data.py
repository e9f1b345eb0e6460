"""What a training learns from and is judged on: clips and sentences of the train split, frames of the val split."""

import dataclasses
import hashlib
import json
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from xclip_module import assemble, sentences
from xclip_module.config import Config, DataConfig
from xclip_module.datasets.augment import Augmentation
from xclip_module.datasets.catalogue import load_corpus
from xclip_module.datasets.corpus import Corpus, Video
from xclip_module.datasets.features import FeatureStore
from xclip_module.datasets.frame_cache import Frames, cached_frames, jpeg_content, stored_side, video_frames
from xclip_module.datasets.loader import Loader
from xclip_module.datasets.prompts import prompt_sets, read_prompts
from xclip_module.datasets.sampling_plan import Plan
from xclip_module.datasets.stored_frames import Content, Grid, Place, estimate, make_grid
from xclip_module.datasets.training_set import TrainingSet, training_set
from xclip_module.datasets.validation_frames import picture_content, validation_frames
from xclip_module.datasets.windows import Sampling
from xclip_module.distributed import World
from xclip_module.errors import ConfigError
from xclip_module.interface import Batch, Picture, VideoTextModel
from xclip_module.models.tokenizer import Tokens
from xclip_module.run import Run

_MOST_THREADS = 16


class Recipe(NamedTuple):
    """What the section finetune means by 0."""

    epochs: float
    batch_size: int
    lr: float
    pretrained_lr_scale: float
    crop_scale: float


# Surgical fine-tuning of CLIP's towers as a start; the demo's are small, and go a little further from shipped weights.
_RECIPES = {"demo": Recipe(epochs=6, batch_size=16, lr=1e-4, pretrained_lr_scale=1.0, crop_scale=1.0)}
_RECIPE = Recipe(epochs=10, batch_size=64, lr=1e-4, pretrained_lr_scale=0.1, crop_scale=0.7)


class TrainingData(NamedTuple):
    """All but the pixels.

    set: clips and sentences.  tokens: of all its sentences.  queries: what validation asks.  val: videos that choose
    the best step, empty where there is no val split.
    """

    corpus: Corpus
    set: TrainingSet
    tokens: Tokens
    queries: sentences.Queries
    sampling: Sampling
    picture: Picture
    val: tuple[Video, ...]


class Clips(NamedTuple):
    """Where training clips come from, and which at which step, over the videos that can be read."""

    frames: Frames
    plan: Plan
    skipped: dict[str, str]


def with_every_split(data: DataConfig) -> DataConfig:
    """So that a missing training video is an error, or named, too."""
    return dataclasses.replace(data, evaluate=("train", "val", "test"))


def with_recipe(config: Config) -> Config:
    """The configuration with the data set's own values where the section finetune leaves them open."""
    own = _RECIPES.get(config.data.name, _RECIPE)._asdict()
    left_open = {name: value for name, value in own.items() if not getattr(config.finetune, name)}
    return dataclasses.replace(config, finetune=dataclasses.replace(config.finetune, **left_open))


def load_training_data(config: Config, model: VideoTextModel) -> TrainingData:
    """Corpus, clips and sentences. Raises ConfigError or DataError for what cannot be trained on."""
    if config.data.video:
        why = "own recordings have no labels to learn from"
        raise ConfigError(f"data.video={config.data.video}", why=why, attempt="--data.name=cholec80 --data.root=FOLDER")
    corpus = load_corpus(with_every_split(config.data))
    assemble.check_track(config, corpus)
    assemble.scored_splits(config, corpus)
    sampling = assemble.sampling_of(config, model)
    stride = config.finetune.clip_stride_seconds or sampling.stride_seconds
    found = training_set(
        corpus, texts=_texts(config, corpus), use_tools=config.finetune.use_tools, clip_stride_seconds=stride
    )
    queries = sentences.read_queries(config, corpus, model)
    tokens = sentences.tokenise(config, model, found.sentences)
    val = tuple(video for video in corpus.of_split("val") if video.id in corpus.moments)
    return TrainingData(corpus, found, tokens, queries, sampling, model.picture, val)


def prepare_clips(config: Config, data: TrainingData, run: Run, *, source: str) -> Clips:
    """The frames of the training videos; source "cache" stores them where they are not yet, "video" needs no disk.

    Raises DataError or DiskError; videos that cannot be read are left out, and named, only where that is allowed.
    """
    place, grid = _training_place(config, data, run.world)
    if source == "video":
        found = video_frames(
            data.set.videos, place.reading, grid=grid, world=run.world, skip_unreadable=place.skip_unreadable
        )
    else:
        found = cached_frames(data.set.videos, place, grid=grid)
    known = data.set.without(found.skipped) if found.skipped else data.set
    return Clips(found.frames, _plan(config, known), found.skipped)


def data_digest(known: TrainingSet) -> str:
    """Changes with any video's file or length, label, sentence or clip; not with the place where the data lies."""
    files = [video.source.stat().st_size if isinstance(video.source, Path) else 0 for video in known.videos]
    found = hashlib.sha256(json.dumps([[video.id for video in known.videos], files, known.sentences]).encode())
    for track in known.tracks.values():
        found.update(track.segments.tobytes() + track.of_class.tobytes() + track.known.tobytes())
    found.update(known.item_video.tobytes() + known.item_time.tobytes())
    return found.hexdigest()[:16]


def forecast_frames(config: Config, data: TrainingData, run: Run) -> dict[str, int]:
    """Bytes that frames still to be stored will take, by kind."""
    place, grid = _training_place(config, data, run.world)
    sizes = {"validation frames": _estimate(data.val, picture_content(), *_validation_place(config, data, run.world))}
    if config.finetune.frames == "cache":
        sizes["training frames"] = _estimate(data.set.videos, jpeg_content(), place, grid)
    return sizes


def load_clips(
    config: Config, data: TrainingData, clips: Clips, world: World, steps: tuple[int, int]
) -> Generator[Batch, None, None]:
    """This process's batches of the steps from the first to the second (excluded)."""
    section = config.finetune
    loader = Loader(
        clips.plan,
        clips.frames,
        input_ids=data.tokens.input_ids,
        mask=data.tokens.mask,
        augmentation=Augmentation(
            data.picture.size, crop_scale=section.crop_scale, flip=section.flip, colour=section.colour
        ),
        world=world,
        threads=section.load_threads or _threads(),
        all_sentences=section.loss == "classification",
    )
    return loader.batches(*steps)


def prepare_validation(
    config: Config, data: TrainingData, run: Run, *, most: int
) -> list[tuple[Video, dict[str, Any]]]:
    """This process's part of the first `most` val videos, with their frames, decoded once and for all."""
    if not data.val:
        return []
    place, _ = _validation_place(config, data, run.world)
    return validation_frames(data.val[:most], place, sampling=data.sampling).videos


def made_up_batch(data: TrainingData, clips: int) -> Batch:
    """A batch of `clips` black clips with real sentences: what a real one takes in memory."""
    side, rows = data.picture.size, min(clips, len(data.tokens.input_ids))
    own = torch.arange(clips) % rows
    holds = own[None] == torch.arange(rows)[:, None]
    return Batch(
        frames=torch.zeros(clips, data.sampling.frames_per_clip, 3, side, side, dtype=torch.uint8),
        start=0,
        input_ids=data.tokens.input_ids[:rows],
        mask=data.tokens.mask[:rows],
        sentences=own,
        positives=holds,
        unknown=torch.zeros_like(holds),
        names=("made up",) * clips,
    )


def _texts(config: Config, corpus: Corpus) -> dict[str, tuple[str, ...]]:
    """What every class may be called: its own sentence first, then those of further prompt sets."""
    texts: dict[str, tuple[str, ...]] = {query.name: (query.text,) for query in corpus.queries}
    if not config.finetune.prompt_sets:
        return texts
    if any(query.kind == "free" for query in corpus.queries):
        why = "prompt sets are sentences for class names, these queries are their own sentences"
        raise ConfigError("finetune.prompt_sets", why=why, attempt="leave it empty")
    for path in prompt_sets(config.finetune.prompt_sets).values():
        more = read_prompts(path, tuple(texts))
        texts = {name: (*known, more[name]) for name, known in texts.items()}
    return texts


def _plan(config: Config, found: TrainingSet) -> Plan:
    section = config.finetune
    return Plan(
        found,
        batch_size=section.batch_size,
        seed=config.run.seed,
        jitter_seconds=section.jitter_seconds,
        balance_phases=section.balance_phases,
        hard_negatives=section.hard_negatives,
        drop_last=section.drop_last,
    )


def _training_place(config: Config, data: TrainingData, world: World) -> tuple[Place, Grid]:
    grid = make_grid(data.sampling, config.finetune.cache_fps)
    side = stored_side(data.picture.size, crop_scale=config.finetune.crop_scale)
    reading = assemble.reading_of(config, fps=grid.fps, size=side)
    return Place(_store(config), reading, world, config.data.skip_unreadable), grid


def _validation_place(config: Config, data: TrainingData, world: World) -> tuple[Place, Grid]:
    reading = assemble.reading_of(config, fps=data.sampling.fps, size=data.picture.size)
    return Place(_store(config), reading, world, config.data.skip_unreadable), make_grid(data.sampling, 0.0)


def _estimate(videos: Sequence[Video], content: Content, place: Place, grid: Grid) -> int:
    return round(estimate(videos, content, place, grid=grid)[1])


def _store(config: Config) -> FeatureStore:
    return FeatureStore(Path(config.finetune.cache or Path(config.run.root) / "frames"))


def _threads() -> int:
    """One per core of this process's share but one, which computes."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST_THREADS, len(os.sched_getaffinity(0)) // local - 1))
