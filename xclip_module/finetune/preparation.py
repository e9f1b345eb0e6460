"""A training before its first step: model, clips, optimizer, and how its steps are computed.

B clips of a batch, T frames, U sentences.
"""

import logging
import math
import os
from collections.abc import Generator
from functools import partial
from typing import Any, NamedTuple

import torch

from xclip_module.config import FinetuneConfig
from xclip_module.features.encoding import to_pixels
from xclip_module.features.frame_cache import cached_frames, jpeg_content, video_frames
from xclip_module.features.stored_frames import estimate, picture_content, validation_frames
from xclip_module.features.video_pass import Arrays
from xclip_module.finetune.loading import Loaded
from xclip_module.interface import Batch, ClipSource, Video
from xclip_module.models import load_tokenizer
from xclip_module.models.parameters import checkpoint_activations_, freeze_, logit_scale, pretrained_names
from xclip_module.models.tokenizer import ClipTokenizer
from xclip_module.run import distributed, precision
from xclip_module.run.distributed import World
from xclip_module.run.folder import Run
from xclip_module.sections import FIND
from xclip_module.tasks.training_data import TrainingData
from xclip_module.tasks.weights import build_model, tokenizer_path
from xclip_module.training.batches.augment import Augmentation
from xclip_module.training.batches.loader import AnyPlan, Loader
from xclip_module.training.engine import Rules, Trainer
from xclip_module.training.grad_cache import StepMaker
from xclip_module.training.memory import find_micro_batch
from xclip_module.training.optim import SCHEDULES, build_optimizer, parameter_groups

_MOST_THREADS = 16

log = logging.getLogger(__name__)


class Clips(NamedTuple):
    """Where training clips come from, and which at which step, over the videos that can be read."""

    frames: ClipSource
    plan: AnyPlan
    skipped: dict[str, str]


class Training(NamedTuple):
    """A training that is ready to begin.

    section: without open keys.  seed: of the run.
    val: this process's videos to validate on, with their frames; has_val: is there one on any process?
    start: digest of the weights it begins with.  digest: of clips, labels and sentences.  total: steps.
    frozen: number of parameters that stay as they are.
    """

    section: FinetuneConfig
    seed: int
    model: Any
    tokenizer: ClipTokenizer
    data: TrainingData
    clips: Clips
    val: list[Any]
    has_val: bool
    trainer: Trainer
    start: str
    digest: str
    precision: str
    total: int
    frozen: int


def prepare(loaded: Loaded, run: Run, *, is_trial: bool = False) -> Training:
    """Everything that training needs, cheap mistakes first.

    is_trial: clips straight from the videos, and one val video, so that little is decoded and stored.
    """
    config, section, world = loaded.config, loaded.config.finetune, run.world
    model: Any = build_model(config.model, config.data, seed=config.run.seed, device=world.device)
    # Now and not when weights are stored: its files may change while the run is live.
    tokenizer = load_tokenizer(tokenizer_path(config.model))
    data = loaded.task.training(loaded.data, model, world)
    # Before the optimizer is built: what is frozen belongs to no group.
    frozen = freeze_(model, section.freeze_layers)
    if section.activation_checkpointing:
        checkpoint_activations_(model)
    chosen = precision.choose(config.run.precision, world.device)
    run.status.update(phase="frames")
    clips = prepare_clips(data, source="video" if is_trial else section.frames)
    val = prepare_validation(data, most=1 if is_trial else len(data.validation.videos))
    total = math.ceil(section.epochs * clips.plan.steps_per_epoch)
    return Training(
        section=section,
        seed=config.run.seed,
        model=model,
        tokenizer=tokenizer,
        data=data,
        clips=clips,
        val=val,
        has_val=any(distributed.gather(bool(val), world)),
        trainer=_trainer(model, section, total, chosen, world),
        start=model.digest(),
        digest=f"{clips.plan.training.digest} {data.validation.digest}",
        precision=chosen,
        total=total,
        frozen=len(frozen),
    )


def _trainer(model: Any, section: FinetuneConfig, total: int, chosen: str, world: World) -> Trainer:
    groups = parameter_groups(
        model.named_parameters(),
        pretrained=pretrained_names(model),
        lr=section.lr,
        pretrained_lr_scale=section.pretrained_lr_scale,
        weight_decay=section.weight_decay,
        rule=section.optimizer,
    )
    return Trainer(
        model,
        build_optimizer(section.optimizer, groups),
        # Small gradients are zero in float16, so its loss is scaled up; bfloat16 has the range of float32.
        torch.amp.GradScaler(world.device.type, enabled=chosen == "fp16"),
        factor=lambda step: SCHEDULES[section.optimizer](step, total, section.warmup),
    )


def make_step(training: Training, world: World, micro_batch_size: int, *, group: Any = None) -> StepMaker:
    """How the steps of this training are computed; group: see `StepMaker`."""
    model, section = training.model, training.section
    return StepMaker(
        model=model,
        to_pixels=partial(to_pixels, picture=model.picture, device=world.device),
        precision=training.precision,
        loss=section.loss,
        micro_batch_size=micro_batch_size,
        seed=training.seed,
        scaler=training.trainer.scaler,
        logit_scale=logit_scale(model),
        max_logit_scale=section.max_logit_scale,
        world=world,
        group=group,
    )


def choose_micro_batch(training: Training, world: World, *, former: int = 0) -> int:
    """Clips in one forward: as configured, all of a share for 0; for `auto` found by trying, the same everywhere.

    former: what an earlier start of this training found; 0 = nothing.
    """
    asked, share = training.section.micro_batch_size, -(-training.section.batch_size // world.size)
    if asked != FIND:
        return min(asked or share, share)
    return former or _find_micro_batch(training, share, world)


def _find_micro_batch(training: Training, share: int, world: World) -> int:
    # Without the others, who may be trying another size.
    alone = World(0, 1, world.device)

    def trial(size: int) -> None:
        batch = made_up_batch(training.data, share)
        # As in a step: the optimizer's two moments of every weight are there, too.
        moments = [torch.zeros_like(p) for p in training.model.parameters() if p.requires_grad for _ in range(2)]
        make_step(training, alone, size).gradients(batch, 0)
        del moments

    training.model.train()
    try:
        fitting = min(distributed.gather(find_micro_batch(trial, share, world.device), world))
    finally:
        training.model.zero_grad(set_to_none=True)
    log.info("micro_batch_size=auto: %d of %d clips in one forward", fitting, share)
    return fitting


def make_rules(training: Training, micro_batch_size: int) -> Rules:
    """When what happens, as configured."""
    section = training.section
    attempt = f"--finetune.micro_batch_size={max(1, micro_batch_size // 2)}"
    if micro_batch_size <= 1:
        attempt = "--finetune.activation_checkpointing=true"
    every = section.validate_every_steps or training.clips.plan.steps_per_epoch
    return Rules(
        total=training.total,
        validate_every=every if training.has_val else 0,
        save_every=section.save_every_steps,
        log_every=section.log_every_steps,
        patience=section.patience,
        # No number has this name: nothing is chosen.
        monitor=section.monitor if training.data.validation.can_choose else "",
        max_grad_norm=section.max_grad_norm,
        max_skipped=section.max_skipped_steps,
        if_short=f"{attempt} (the same run goes on with it)",
    )


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
    return {name: round(estimate(videos, kind, place, grid=grid)[1]) for name, videos, kind, place, grid in wanted}


def load_clips(
    section: FinetuneConfig, data: TrainingData, clips: Clips, world: World, steps: tuple[int, int]
) -> Generator[Batch, None, None]:
    """This process's batches of the steps from the first to the second (excluded)."""
    loader = Loader(
        plan=clips.plan,
        frames=clips.frames,
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
