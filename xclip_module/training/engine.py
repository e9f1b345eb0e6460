"""The training loop: steps, validation, the best and the last, and a state from which it goes on bit by bit.

What a step does depends on the weights, the optimizer, the scaler and the number of the step alone: the order of the
clips, their augmentation, dropout and the learning rate are functions of (seed, step). So the state below is all that a
checkpoint needs.
"""

import contextlib
import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from xclip_module.errors import DiskError, MemoryShortage, NonFiniteError
from xclip_module.interface import Batch
from xclip_module.training.grad_cache import StepLoss
from xclip_module.training.optim import set_lr


@dataclass
class Progress:
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


class Hooks(NamedTuple):
    """What the loop asks of the outside.

    batches: the batches from one step to another.  gradients: writes `.grad` of every parameter for a batch and a step.
    synchronise: averages gradients over processes.  after_step: keeps parameters in their bounds.
    validate: val numbers of the present weights.  keep_best: stores the present weights as the best
    and gives their SHA-256.
    save: stores a checkpoint.  log: takes a row every `log_every` steps.  held: signals wait in its body.
    """

    batches: Callable[[int, int], Generator[Batch, None, None]]
    gradients: Callable[[Batch, int], StepLoss]
    synchronise: Callable[[], None]
    after_step: Callable[[], None]
    validate: Callable[[], dict[str, Any]]
    keep_best: Callable[[], str]
    save: Callable[[dict[str, Any], int], None]
    log: Callable[[dict[str, Any]], None]
    held: Callable[[], contextlib.AbstractContextManager[None]]


class Trainer:
    """Model, optimizer, scaler and progress: what changes with a step."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, factor: Callable
    ):
        """`factor(step)` is the learning rate's share of its peak."""
        self.model, self.optimizer, self.scaler, self.factor = model, optimizer, scaler, factor
        self.progress = Progress()
        # True while a step is being applied: such a state must not be saved.
        self.is_torn = False

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
        self.progress = Progress(**state["progress"])

    def apply(self, rules: Rules, after_step: Callable[[], None]) -> float:
        """One step of the optimizer with the gradients as they are; the gradient norm, not finite for a skipped one."""
        set_lr(self.optimizer, self.factor(self.progress.step))
        self.is_torn = True
        self.scaler.unscale_(self.optimizer)
        most = rules.max_grad_norm or math.inf
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, most))
        if math.isfinite(norm):
            self.scaler.step(self.optimizer)
            after_step()
        # An overflow halves the scale; without a scaler there is nothing to update, and the step is left out all the
        # same: one NaN would stay in the weights for ever.
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        progress = self.progress
        progress.step += 1
        progress.skipped += not math.isfinite(norm)
        progress.skipped_in_a_row = 0 if math.isfinite(norm) else progress.skipped_in_a_row + 1
        self.is_torn = False
        return norm


def fit(trainer: Trainer, rules: Rules, hooks: Hooks) -> str:
    """Trains to the end, from wherever the trainer is; says why it ended.

    Whatever ends it early, the last finished step is saved first: at most the step under way is lost. Raises
    NonFiniteError after too many skipped steps in a row; then the former checkpoint is left as it is.
    """
    saved = trainer.progress.step

    def save() -> None:
        nonlocal saved
        with hooks.held():
            hooks.save(trainer.state(), trainer.progress.step)
            saved = trainer.progress.step

    try:
        with contextlib.closing(hooks.batches(trainer.progress.step, rules.total)) as batches:
            clock = _Clock()
            while True:
                if _validate(trainer, rules, hooks):
                    save()
                if reason := _end(trainer.progress, rules):
                    if saved != trainer.progress.step:
                        save()
                    return reason
                _step(trainer, rules, hooks, batches, clock)
                if trainer.progress.step % rules.save_every == 0:
                    save()
    except (NonFiniteError, DiskError):
        raise
    except BaseException:
        if saved != trainer.progress.step and not trainer.is_torn:
            save()
        raise


def _step(trainer: Trainer, rules: Rules, hooks: Hooks, batches: Generator[Batch, None, None], clock: "_Clock") -> None:
    progress = trainer.progress
    clock.wait()
    batch = next(batches)
    clock.work()
    try:
        found = hooks.gradients(batch, progress.step)
        hooks.synchronise()
        with hooks.held():
            norm = trainer.apply(rules, hooks.after_step)
            clock.add(len(batch.names))
            _log(trainer, rules, hooks, found, {"grad_norm": norm if math.isfinite(norm) else None}, clock)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_shortage(error):
            raise
        why = str(error).split(".")[0]
        raise MemoryShortage("out of memory in a training step", "", why, rules.if_short) from error
    if progress.skipped_in_a_row >= rules.max_skipped:
        _give_up(trainer, batch, found.loss)


def _log(trainer: Trainer, rules: Rules, hooks: Hooks, found: StepLoss, facts: dict[str, Any], clock: "_Clock") -> None:
    """Adds a step to the means, and hands them out where a line is due."""
    progress, window = trainer.progress, trainer.progress.window
    progress.window = [a + b for a, b in zip(window, (found.loss, found.floor, found.accuracy, 1), strict=True)]
    if progress.step % rules.log_every and progress.step != rules.total:
        return
    loss, floor, accuracy, count = progress.window
    row = {
        "step": progress.step,
        "loss": loss / count if math.isfinite(loss) else None,
        "floor": floor / count,
        "accuracy": accuracy / count,
        "lr": max(group["lr"] for group in trainer.optimizer.param_groups),
        **facts,
        "scale": trainer.scaler.get_scale(),
        "skipped": progress.skipped,
    }
    hooks.log({**row, **clock.row(rules.total - progress.step)})
    progress.window = [0.0, 0.0, 0.0, 0]


def _validate(trainer: Trainer, rules: Rules, hooks: Hooks) -> bool:
    """Validates where it is due; True when it did."""
    progress = trainer.progress
    is_due = rules.validate_every and (progress.step % rules.validate_every == 0 or progress.step >= rules.total)
    if not is_due or progress.validated == progress.step:
        return False
    trainer.model.eval()
    row = hooks.validate()
    trainer.model.train()
    value = row.get(rules.monitor)
    is_better = value is not None and value > progress.best
    with hooks.held():
        if value is not None and is_better:
            progress.best_sum = hooks.keep_best()
            progress.best, progress.best_step = float(value), progress.step
        # An undefined number says nothing about the weights.
        progress.since_best = 0 if is_better else progress.since_best + (value is not None)
        progress.validated = progress.step
        progress.validations.append({"step": progress.step, **row})
    return True


def _end(progress: Progress, rules: Rules) -> str:
    if rules.patience and progress.since_best >= rules.patience:
        return f"early: {progress.since_best} validations without a better {rules.monitor}"
    return "all steps" if progress.step >= rules.total else ""


def _give_up(trainer: Trainer, batch: Batch, loss: float) -> None:
    progress = trainer.progress
    names: Sequence[str] = [*batch.names[:8], *(["…"] if len(batch.names) > 8 else [])]
    lr = max(group["lr"] for group in trainer.optimizer.param_groups)
    why = (
        f"{progress.skipped_in_a_row} steps in a row up to step {progress.step}: loss {loss:g}, lr {lr:.3g}, "
        f"loss scale {trainer.scaler.get_scale():g}, last batch {', '.join(names)}"
    )
    raise NonFiniteError(
        "gradients are not finite", "", why, "a smaller --finetune.lr, or --run.precision=bf16 or fp32"
    )


def _is_shortage(error: BaseException) -> bool:
    is_torchs = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_torchs or "can't allocate memory" in str(error) or "out of memory" in str(error)


class _Clock:
    """Where the seconds go, between two logged lines."""

    def __init__(self) -> None:
        self._restart()

    def wait(self) -> None:
        self._asked = time.perf_counter()

    def work(self) -> None:
        self._waited += time.perf_counter() - self._asked

    def add(self, clips: int) -> None:
        self._clips += clips
        self._steps += 1

    def row(self, steps_left: int) -> dict[str, float]:
        seconds = time.perf_counter() - self._start
        row = {
            "clips_per_second": self._clips / seconds,
            "data_wait": self._waited / seconds,
            "eta_seconds": steps_left * seconds / self._steps,
        }
        self._restart()
        return row

    def _restart(self) -> None:
        self._start, self._waited, self._clips, self._steps = time.perf_counter(), 0.0, 0, 0
