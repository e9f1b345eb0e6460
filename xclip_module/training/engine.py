"""The training loop: steps, validation, the best and the last, and a state from which it goes on bit by bit.

What a step does depends on the weights, the optimizer, the scaler and the number of the step alone: the order of the
clips, their augmentation, dropout and the learning rate are functions of (seed, step). So the state below is all that a
checkpoint needs.
"""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from xclip_module.errors import DiskError, MemoryShortage, NonFiniteError
from xclip_module.interface import Batch
from xclip_module.training.grad_cache import StepLoss, StepMaker
from xclip_module.training.optim import set_lr

# So many clips of a batch that gave no finite gradient are named.
_MOST_NAMES = 8


@dataclass
class TrainingProgress:
    """How far a training is; primitives only, as they stand in a checkpoint.

    step: finished steps.  skipped, skipped_in_a_row: those whose gradients were not finite.
    best, best_step, since_best: of the monitored val number, and validations since; best_step -1 = none yet.
    best_sum: SHA-256 of the best weights' file.
    validated: the step of the last validation.  validations: their numbers.
    window: sums of loss, floor and accuracy, and the number of steps, since the last logged line.
    """

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float = -math.inf
    best_step: int = -1
    best_sum: str = ""
    since_best: int = 0
    validated: int = -1
    validations: list[dict[str, Any]] = field(default_factory=list)
    window: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0, 0])


class Rules(NamedTuple):
    """When what happens, in steps; validate_every 0 = never, patience 0 = no early stopping.

    if_short: what to try when memory runs out.
    """

    total: int
    validate_every: int
    save_every: int
    log_every: int
    patience: int
    monitor: str
    max_grad_norm: float
    max_skipped: int
    if_short: str


class Outside(Protocol):
    """The world outside of the loop."""

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """The batches from one step to another (excluded)."""

    def validate(self) -> dict[str, Any]:
        """Val numbers of the present weights."""

    def keep_best(self) -> str:
        """Stores the present weights as the best; their SHA-256."""

    def save(self, state: dict[str, Any], step: int) -> None:
        """Stores a checkpoint."""

    def log(self, row: dict[str, Any]) -> None:
        """Takes the means of the last steps, every `log_every` of them."""

    def deferred(self) -> contextlib.AbstractContextManager[None]:
        """Signals wait until the body has ended."""


@dataclass
class Trainer:
    """Model, optimizer, scaler and progress: what changes with a step.

    factor: of a step, the learning rate's share of its peak.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    factor: Callable[[int], float]
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    # True while a step is being applied: such a state must not be saved.
    is_torn: bool = False

    def state(self) -> dict[str, Any]:
        """All of it for a checkpoint: tensors and primitives."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "progress": asdict(self.progress),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of `state`, strictly."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.progress = TrainingProgress(**state["progress"])

    def apply(self, max_grad_norm: float) -> float:
        """One step of the optimizer with the gradients as they are; the gradient norm, not finite for a skipped one.

        max_grad_norm: 0 = gradients are not scaled down.
        """
        set_lr(self.optimizer, self.factor(self.progress.step))
        self.is_torn = True
        # Before the norm is taken: of scaled gradients it would be thousands of times the one that is asked for.
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm or math.inf))
        if math.isfinite(norm):
            self.scaler.step(self.optimizer)
        # An overflow halves the scale; without a scaler there is nothing to update, and the step is left out all the
        # same: one NaN would stay in the weights for ever.
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        progress = self.progress
        # A skipped step counts: the next one has other clips and other dropout, and the learning rate moves on.
        progress.step += 1
        progress.skipped += not math.isfinite(norm)
        progress.skipped_in_a_row = 0 if math.isfinite(norm) else progress.skipped_in_a_row + 1
        self.is_torn = False
        return norm


def fit(trainer: Trainer, maker: StepMaker, rules: Rules, outside: Outside) -> str:
    """Trains to the end, from wherever the trainer is; says why it ended.

    Whatever ends it early, the last finished step is saved first: at most the step under way is lost. Not so when
    gradients stay infinite (NonFiniteError) or the disk is full (DiskError): the former checkpoint is left as it is.
    """
    progress = trainer.progress
    saved = progress.step

    def save() -> None:
        nonlocal saved
        with outside.deferred():
            outside.save(trainer.state(), progress.step)
            saved = progress.step

    try:
        with contextlib.closing(outside.batches(progress.step, rules.total)) as batches:
            clock = _Clock()
            while True:
                # Before the end is looked at, so that the last weights are judged, too; and before the first step, so
                # that training must beat the weights that it began with.
                if _is_due(progress, rules):
                    _validate(trainer, rules, outside)
                    # At once: the best weights on disk are those that the newest checkpoint knows.
                    save()
                if reason := _end(progress, rules):
                    if saved != progress.step:
                        save()
                    return reason
                _step(trainer, maker, rules, outside, batches, clock)
                if progress.step % rules.save_every == 0:
                    save()
    except (NonFiniteError, DiskError):
        # Weights that went astray must not take the place of good ones; a full disk takes nothing.
        raise
    except BaseException:
        if saved != progress.step and not trainer.is_torn:
            save()
        raise


def _step(
    trainer: Trainer, maker: StepMaker, rules: Rules, outside: Outside, batches: Iterator[Batch], clock: "_Clock"
) -> None:
    """One step; a function of its own, so that its batch is gone before the next one is asked for."""
    progress = trainer.progress
    asked = time.perf_counter()
    batch = next(batches)
    clock.waited += time.perf_counter() - asked
    with _shortages(rules.if_short):
        step_loss = maker.gradients(batch, progress.step)
        # Not to be torn: a step that counts has moved the weights and is in the means of the next row.
        with outside.deferred():
            norm = trainer.apply(rules.max_grad_norm)
            if math.isfinite(norm):
                maker.clamp_()
            clock.clips += len(batch.names)
            clock.steps += 1
            _log(trainer, rules, outside, step_loss, norm, clock)
    if progress.skipped_in_a_row >= rules.max_skipped:
        _give_up(trainer, batch, step_loss.loss)


def _log(trainer: Trainer, rules: Rules, outside: Outside, step_loss: StepLoss, norm: float, clock: "_Clock") -> None:
    """Adds a step to the means, and hands them out where a line is due."""
    progress, window = trainer.progress, trainer.progress.window
    progress.window = [a + b for a, b in zip(window, (*step_loss, 1), strict=True)]
    if progress.step % rules.log_every and progress.step != rules.total:
        return
    loss, floor, accuracy, count = progress.window
    row = {
        "step": progress.step,
        # JSON has neither NaN nor infinity.
        "loss": loss / count if math.isfinite(loss) else None,
        "floor": floor / count,
        "accuracy": accuracy / count,
        "lr": max(group["lr"] for group in trainer.optimizer.param_groups),
        "grad_norm": norm if math.isfinite(norm) else None,
        "scale": trainer.scaler.get_scale(),
        "skipped": progress.skipped,
    }
    outside.log({**row, **clock.row(rules.total - progress.step)})
    progress.window = [0.0, 0.0, 0.0, 0]


def _is_due(progress: TrainingProgress, rules: Rules) -> bool:
    """Whether the present step is one to validate; not a second time after a resume."""
    is_due = rules.validate_every and (progress.step % rules.validate_every == 0 or progress.step >= rules.total)
    return bool(is_due) and progress.validated != progress.step


def _validate(trainer: Trainer, rules: Rules, outside: Outside) -> None:
    progress = trainer.progress
    trainer.model.eval()
    row = outside.validate()
    trainer.model.train()
    value = row.get(rules.monitor)
    is_better = value is not None and value > progress.best
    with outside.deferred():
        if value is not None and is_better:
            # First the file, then what the next checkpoint says of it: killed in between, the former best still is one.
            progress.best_sum = outside.keep_best()
            progress.best, progress.best_step = float(value), progress.step
        # An undefined number says nothing about the weights.
        progress.since_best = 0 if is_better else progress.since_best + (value is not None)
        progress.validated = progress.step
        progress.validations.append({"step": progress.step, **row})


def _end(progress: TrainingProgress, rules: Rules) -> str:
    if rules.patience and progress.since_best >= rules.patience:
        return f"early: {progress.since_best} validations without a better {rules.monitor}"
    return "all steps" if progress.step >= rules.total else ""


def _give_up(trainer: Trainer, batch: Batch, loss: float) -> None:
    progress = trainer.progress
    names: Sequence[str] = [*batch.names[:_MOST_NAMES], *(["…"] if len(batch.names) > _MOST_NAMES else [])]
    lr = max(group["lr"] for group in trainer.optimizer.param_groups)
    why = (
        f"{progress.skipped_in_a_row} steps in a row up to step {progress.step}: loss {loss:g}, lr {lr:.3g}, "
        f"loss scale {trainer.scaler.get_scale():g}, last batch {', '.join(names)}"
    )
    attempt = "a smaller --finetune.lr, or --run.precision=bf16 or fp32"
    raise NonFiniteError("gradients are not finite", "", why, attempt)


@contextlib.contextmanager
def _shortages(attempt: str) -> Iterator[None]:
    """Turns what torch raises when memory runs out into MemoryShortage, which says what to try."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        is_torchs = isinstance(error, torch.OutOfMemoryError | MemoryError)
        # The allocator of the CPU has no error class of its own.
        if not is_torchs and "can't allocate memory" not in str(error) and "out of memory" not in str(error):
            raise
        why = str(error).split(".")[0]
        raise MemoryShortage("out of memory in a training step", "", why, attempt) from error


class _Clock:
    """Where the seconds go, between two logged lines."""

    def __init__(self) -> None:
        self._restart()

    def row(self, steps_left: int) -> dict[str, float]:
        seconds = time.perf_counter() - self._start
        row = {
            "clips_per_second": self.clips / seconds,
            "data_wait": self.waited / seconds,
            "eta_seconds": steps_left * seconds / self.steps,
        }
        self._restart()
        return row

    def _restart(self) -> None:
        self._start, self.waited, self.clips, self.steps = time.perf_counter(), 0.0, 0, 0
