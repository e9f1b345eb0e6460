"""A training tried for `--check`: two steps, one validation, one checkpoint, and a forecast of the whole."""

import logging
import math
import shutil
from collections.abc import Iterable
from typing import NamedTuple

import torch

from xclip_module.errors import WeightsError
from xclip_module.finetune.clips import forecast_frames, load_clips
from xclip_module.finetune.loading import Loaded
from xclip_module.finetune.preparation import Training, choose_micro_batch, make_rules, make_step, prepare
from xclip_module.interface import Video
from xclip_module.run.folder import Run
from xclip_module.run.timing import timed
from xclip_module.training import checkpoint

log = logging.getLogger(__name__)


class TrainingForecast(NamedTuple):
    """Seconds and bytes of a whole run by part; note: for how much training that is."""

    seconds: dict[str, float]
    size: dict[str, int]
    note: str


def try_training(loaded: Loaded, run: Run) -> TrainingForecast:
    """Everything that a training does, once, and what all of it will take; the weights stay as they are.

    Training clips come straight from the videos, so that nothing is stored but the frames of one val video.
    Raises what a training would raise.
    """
    with timed("weights, sentences, training videos"):
        training = prepare(loaded, run, is_trial=True)
    log.info("weights: %s, %s", training.model.protocol, training.precision)
    step, validation = _try_steps(training, run), _try_validation(training, run)
    return _forecast(training, step, validation, _try_checkpoint(training, run))


def _try_steps(training: Training, run: Run) -> float:
    """Seconds of a step, the second of two: the first warms up. The learning rate is 0, so nothing is trained."""
    micro_batch_size = choose_micro_batch(training, run.world)
    trainer, maker = training.trainer, make_step(training, run.world, micro_batch_size)
    trainer.factor = lambda step: 0.0
    training.model.train()
    seconds = 0.0
    steps = 0, min(2, training.total)
    for batch in load_clips(training.section, training.data, training.clips, run.world, steps):
        with timed(f"a step of {len(batch.names)} clips, {micro_batch_size} in a forward") as spent:
            loss = maker.gradients(batch, 0)
            norm = trainer.apply(training.section.max_grad_norm)
        seconds = spent.seconds
        log.info("loss %.4f (floor %.4f), gradient norm %.3g", loss.loss, loss.floor, norm)
    training.model.eval()
    return seconds


def _try_validation(training: Training, run: Run) -> float:
    """Seconds per unit of val video."""
    if not training.has_val:
        log.warning("no val split: nothing will choose a best step")
        return 0.0
    with timed("a validation on one video") as spent:
        training.data.validation.measure(training.val, run)
    return spent.seconds / _length(video for video, _ in training.val) if training.val else 0.0


def _try_checkpoint(training: Training, run: Run) -> tuple[float, int]:
    """Seconds and bytes of a checkpoint, which is written, read back, compared and removed."""
    if not run.world.is_main:
        return 0.0, 0
    folder, state = run.folder / "trial", training.trainer.state()
    with timed("a checkpoint written and read back") as spent:
        path = checkpoint.save(folder, state, step=0, keep=1)
        size = path.stat().st_size
        restored = checkpoint.read(path)
    shutil.rmtree(folder)
    same = all(torch.equal(tensor.cpu(), restored["model"][name]) for name, tensor in state["model"].items())
    if not same:
        raise WeightsError("a checkpoint reads back as something else", path, attempt="another disk: --run.root=FOLDER")
    return spent.seconds, size


def _forecast(training: Training, step: float, validation: float, save: tuple[float, int]) -> TrainingForecast:
    """From seconds of a step, of validating a unit of video (see `_length`), seconds and bytes of a checkpoint."""
    section, steps, data = training.section, training.total, training.data
    every = make_rules(training, 1).validate_every
    # One before the first step, and one at the end where that is no multiple.
    validations = 1 + math.ceil(steps / every) if every else 0
    seconds = {
        "training": step * steps,
        f"{validations} validations": validation * _length(data.validation.videos) * validations,
        "checkpoints": save[0] * steps / section.save_every_steps,
        "final scores": validation * _length(data.scored),
    }
    model = sum(p.numel() * 4 for p in training.model.parameters())
    # Two checkpoints are kept while a third is written; best and last weights.
    size = {"checkpoints": 3 * save[1], "weights": 2 * model}
    frames = forecast_frames(data, source=section.frames)
    return TrainingForecast(seconds, size | frames, f"{steps} steps of {section.batch_size} clips")


def _length(videos: Iterable[Video]) -> float:
    """What scoring goes by: seconds, by the labels; videos that are looked at in a few frames count 1."""
    return sum(video.label_seconds or 1.0 for video in videos)
