"""Pixels of a training: clips of the training videos, step by step, and the frames to validate on.

B clips of a batch, T frames, U sentences.
"""

import os
from collections.abc import Generator
from typing import NamedTuple

import torch

from xclip_module.config import FinetuneConfig
from xclip_module.features.frame_cache import cached_frames, jpeg_content, video_frames
from xclip_module.features.stored_frames import estimate, picture_content, validation_frames
from xclip_module.features.video_pass import Arrays
from xclip_module.interface import Batch, ClipSource, Video
from xclip_module.run.distributed import World
from xclip_module.tasks.training_data import TrainingData
from xclip_module.training.batches.augment import Augmentation
from xclip_module.training.batches.loader import AnyPlan, Loader

_MOST_THREADS = 16


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
        opened = video_frames(
            data.set.videos, place.reading, grid=grid, world=place.world, skip_unreadable=place.skip_unreadable
        )
    else:
        opened = cached_frames(data.set.videos, place, grid=grid)
    # The steps are planned over what can be read: their number and their clips must not change on the way.
    readable = data.set.without(opened.skipped) if opened.skipped else data.set
    return Clips(opened.frames, data.plan(readable), opened.skipped)


def forecast_frames(data: TrainingData, *, source: str) -> dict[str, int]:
    """Bytes that frames still to be stored will take, by kind; source as in `prepare_clips`."""
    judged = data.validation
    wanted = [("validation frames", judged.videos, picture_content(), judged.place, judged.grid)]
    if source == "cache":
        wanted.append(("training frames", data.set.videos, jpeg_content(), data.place, data.grid))
    return {
        name: round(estimate(videos, content, place, grid=grid)[1]) for name, videos, content, place, grid in wanted
    }


def load_clips(
    section: FinetuneConfig, data: TrainingData, clips: Clips, world: World, steps: tuple[int, int]
) -> Generator[Batch, None, None]:
    """This process's batches of the steps from the first to the second (excluded)."""
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
        # Its softmax is over the classes of the data set, not over those of a batch.
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
    # As many distinct sentences as can be: each is a row of the text tower's forward.
    sentences = torch.arange(clips) % rows
    holds = sentences[None] == torch.arange(rows)[:, None]  # [U, B]
    return Batch(
        frames=torch.zeros(clips, slots, 3, side, side, dtype=torch.uint8),
        shown=torch.ones(clips, slots, dtype=torch.bool),
        start=0,
        input_ids=data.tokens.input_ids[:rows],
        mask=data.tokens.mask[:rows],
        sentences=sentences,
        positives=holds,
        unknown=torch.zeros_like(holds),
        names=("made up",) * clips,
    )


def _threads() -> int:
    """One per core of this process's share but one, which computes."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST_THREADS, len(os.sched_getaffinity(0)) // local - 1))
