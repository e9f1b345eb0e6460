"""What a training learns from and is judged on, whatever kind of data it is: batches, and frames of the validation."""

import os
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from xclip_module.config import Config
from xclip_module.features.frame_cache import cached_frames, jpeg_content, video_frames
from xclip_module.features.store import FeatureStore
from xclip_module.features.stored_frames import FrameStorage, estimate
from xclip_module.features.validation_frames import picture_content, validation_frames
from xclip_module.features.video_pass import Arrays
from xclip_module.interface import AnyGrid, Batch, ClipSource, Picture, Video
from xclip_module.models.tokenizer import Tokens
from xclip_module.run.distributed import World
from xclip_module.run.launch import Run
from xclip_module.training.batches.augment import Augmentation
from xclip_module.training.batches.loader import AnyPlan, Loader

_MOST_THREADS = 16

# From this process's videos, with "pictures" [N, 3, H, H] of their frames: numbers, the same on every process.
Measure = Callable[[Sequence[tuple[Video, Arrays]], Run], dict[str, float | None]]


class Validation(NamedTuple):
    """How the present weights are judged.

    split: whose videos; they are none where there is no such split.  place, grid: where their frames are stored, how
    they are read, and which they are.
    digest: changes with what is judged: sentences, truth, files.
    can_choose: False where it is the split that is reported: a step chosen there would be praised for it.
    """

    split: str
    videos: tuple[Video, ...]
    place: FrameStorage
    grid: AnyGrid
    measure: Measure
    digest: str
    can_choose: bool

    @property
    def in_words(self) -> str:
        """For the results; begins with the name of the split."""
        return self.split if self.can_choose else f"{self.split} (the split that is reported: it chooses nothing)"


class TrainingData(NamedTuple):
    """All but the pixels, of any kind of data.

    set: clips and sentences, a `TrainingSet` or `PairSet`.  tokens: of all its sentences.
    place, grid: where training frames are stored, how they are read, and which of them are a clip.
    plan: from the set, or what is left of it, which clips belong to which step.
    missing: training videos that are not there -> why.  scored: the videos that are scored after training.
    """

    set: Any
    tokens: Tokens
    picture: Picture
    place: FrameStorage
    grid: AnyGrid
    plan: Callable[[Any], AnyPlan]
    missing: Mapping[str, str]
    validation: Validation
    scored: tuple[Video, ...]


class Clips(NamedTuple):
    """Where training clips come from, and which at which step, over the videos that can be read."""

    frames: ClipSource
    plan: AnyPlan
    skipped: dict[str, str]


def prepare_clips(data: TrainingData, *, source: str) -> Clips:
    """The frames of the training videos; source "cache" stores them where they are not yet, "video" needs no disk.

    Raises DataError or DiskError; videos that cannot be read are left out, and named, only where that is allowed.
    """
    place, grid = data.place, data.grid
    if source == "video":
        found = video_frames(
            data.set.videos, place.reading, grid=grid, world=place.world, skip_unreadable=place.skip_unreadable
        )
    else:
        found = cached_frames(data.set.videos, place, grid=grid)
    known = data.set.without(found.skipped) if found.skipped else data.set
    return Clips(found.frames, data.plan(known), found.skipped)


def forecast_frames(config: Config, data: TrainingData) -> dict[str, int]:
    """Bytes that frames still to be stored will take, by kind."""
    judged = data.validation
    wanted = [("validation frames", judged.videos, picture_content(), judged.place, judged.grid)]
    if config.finetune.frames == "cache":
        wanted.append(("training frames", data.set.videos, jpeg_content(), data.place, data.grid))
    return {
        name: round(estimate(videos, content, place, grid=grid)[1]) for name, videos, content, place, grid in wanted
    }


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


def prepare_validation(data: TrainingData, *, most: int) -> list[tuple[Video, Arrays]]:
    """This process's part of the first `most` videos to validate on, with their frames, decoded once and for all."""
    judged = data.validation
    if not judged.videos:
        return []
    return validation_frames(judged.videos[:most], judged.place, grid=judged.grid).videos


def made_up_batch(data: TrainingData, clips: int) -> Batch:
    """A batch of `clips` black clips with real sentences: what a real one takes in memory."""
    side, slots, rows = data.picture.size, data.grid.frames_per_clip, min(clips, len(data.tokens.input_ids))
    own = torch.arange(clips) % rows
    holds = own[None] == torch.arange(rows)[:, None]
    return Batch(
        frames=torch.zeros(clips, slots, 3, side, side, dtype=torch.uint8),
        shown=torch.ones(clips, slots, dtype=torch.bool),
        start=0,
        input_ids=data.tokens.input_ids[:rows],
        mask=data.tokens.mask[:rows],
        sentences=own,
        positives=holds,
        unknown=torch.zeros_like(holds),
        names=("made up",) * clips,
    )


def frame_store(config: Config) -> FeatureStore:
    """Where training and validation frames are."""
    return FeatureStore(Path(config.finetune.cache or Path(config.run.root) / "frames"))


def _threads() -> int:
    """One per core of this process's share but one, which computes."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST_THREADS, len(os.sched_getaffinity(0)) // local - 1))
