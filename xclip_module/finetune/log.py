"""What a training says: before it begins, in the results, and on the way the numbers of its steps, which go to
metrics.jsonl, status.json, the screen, and TensorBoard where it is installed.
"""

import importlib.util
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xclip_module.finetune.preparation import Training
from xclip_module.run.distributed import World
from xclip_module.run.folder import Run
from xclip_module.run.progress import Progress
from xclip_module.run.timing import clock, peak_memory
from xclip_module.training.engine import Rules

_OPTIMIZERS = {
    "adamw": "AdamW (betas 0.9, 0.98), linear warm-up, cosine to 0",
    "bertadam": "BertAdam and schedule as released, but on fp32 weights: the released code trains fp16 ones, whose "
    "towers move further at the same learning rate",
    "mmaction2": "AdamW (betas 0.9, 0.999) and schedule as in MMAction2's CLIP4Clip",
}
_PRECISIONS = {
    "fp32": "fp32",
    "fp16": "fp32 weights and moments, towers in fp16 autocast with loss scaling, head and loss in fp32",
    "bf16": "fp32 weights and moments, towers in bf16 autocast, head and loss in fp32",
}
# Of every logged row, what the report draws.
_CURVE = ("step", "loss", "floor", "lr", "grad_norm")

log = logging.getLogger(__name__)


def announce(training: Training, rules: Rules, micro_batch_size: int, world: World) -> None:
    """Says what is about to be trained, and what will be missing from it."""
    parameters = list(training.model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    log.info(
        "training %.1f of %.1f M parameters in %s on %s: %d clips of %d videos, %d steps of %d clips (%d in a forward)",
        trained / 1e6,
        sum(p.numel() for p in parameters) / 1e6,
        training.precision,
        "one process" if world.size == 1 else f"{world.size} processes",
        training.clips.plan.clips_per_epoch,
        len(training.clips.plan.training.videos),
        training.total,
        training.section.batch_size,
        micro_batch_size,
    )
    if not rules.validate_every:
        log.warning("no val video: nothing chooses a best step, the last weights are kept")
    elif not rules.monitor:
        log.warning("validated on %s; the last weights are kept", training.data.validation.in_words)
    if left_out := _left_out(training):
        log.warning("left out of training: %s", left_out)


def facts_of(
    training: Training, end: str, rows: list[dict[str, Any]], *, weights: str, effort: dict[str, Any]
) -> dict[str, Any]:
    """What results and report say of a finished training.

    end: why it ended.  rows: logged ones, of all starts.  weights: the name of those it began with.
    effort: what the environment says of it, too.
    """
    section, plan, progress = training.section, training.clips.plan, training.trainer.progress
    has_best = progress.best_step >= 0
    return {
        "weights": f"{weights} ({training.start[:12]})",
        "loss": section.loss,
        "optimizer": _OPTIMIZERS[section.optimizer],
        "learning rate": f"{section.lr:g}, towers {section.lr * section.pretrained_lr_scale:g}",
        "batch_size": section.batch_size,
        "clips": plan.clips_per_epoch,
        "videos": len(plan.training.videos),
        "steps": progress.step,
        "epochs": round(progress.step / plan.steps_per_epoch, 2),
        "best_step": progress.best_step if has_best else progress.step,
        "end": end,
        "monitor": section.monitor,
        "validated_on": training.data.validation.in_words if training.has_val else "nothing",
        "chosen": "best" if has_best else _why_last(training),
        "left out": _left_out(training) or "no training video",
        "skipped_steps": progress.skipped,
        "precision": _PRECISIONS[training.precision],
        "frozen": f"{training.frozen} parameters" if training.frozen else "nothing",
        **effort,
        "curve": [{name: row[name] for name in _CURVE} for row in rows],
        "validations": progress.validations,
    }


def logged_rows(run: Run) -> list[dict[str, Any]]:
    """The means over steps in metrics.jsonl, without the validations."""
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


def _left_out(training: Training) -> str:
    """Training videos that are missing or cannot be read, with the reason; "" for none."""
    reasons = {**training.data.missing, **training.clips.skipped}
    return "; ".join(f"{name} ({reason})" for name, reason in sorted(reasons.items()))


def _why_last(training: Training) -> str:
    if not training.has_val:
        return "last (no val split)"
    return "last (undefined on val)" if training.data.validation.can_choose else "last (no split to choose on)"


class TrainingLog:
    """One line every few steps, or one bar where people watch. Use as a context manager."""

    def __init__(self, run: Run, *, step: int, total: int):
        """Goes on from `step` of `total`."""
        self._run, self._total, self._done = run, total, step
        is_shown = run.is_terminal and run.world.is_main
        self._bar = Progress(total, name="training", unit="steps", is_shown=is_shown, done=step)
        self._board = _open_board(run.folder / "tensorboard", step) if run.world.is_main else None

    def __enter__(self) -> "TrainingLog":
        return self

    def __exit__(self, *ended: Any) -> None:
        self._bar.__exit__(*ended)
        if self._board is not None:
            self._board.close()

    def row(self, row: Mapping[str, Any]) -> None:
        """The means since the last row, with where the time goes."""
        row = {**row, "memory_gb": round(peak_memory(self._run.world.device) / 1e9, 3)}
        self._run.record(**row)
        self._run.status.update(phase="training", steps=self._total, **{k: row[k] for k in ("step", "eta_seconds")})
        self._draw(row, "train")
        self._bar.advance(row["step"] - self._done, note=_short(row))
        self._done = row["step"]
        if not self._run.is_terminal:
            log.info("%s", _line(row, self._total))

    def validation(self, step: int, row: Mapping[str, Any], split: str) -> None:
        """The numbers of a split, mostly val, at a step."""
        self._run.record(step=step, split=split, **row)
        self._draw({**row, "step": step}, split)
        cells = [f"{name} {'–' if value is None else format(value, '.3f')}" for name, value in row.items()]
        log.info("%s at step %d: %s", split, step, "  ".join(cells))

    def _draw(self, row: Mapping[str, Any], group: str) -> None:
        for name, value in row.items():
            if self._board is not None and name != "step" and value is not None:
                self._board.add_scalar(f"{group}/{name}", value, row["step"])


def _open_board(folder: Path, step: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter  # seconds to import, and absent on most machines

    return SummaryWriter(str(folder), purge_step=step + 1)


def _line(row: Mapping[str, Any], total: int) -> str:
    cells = {
        "step": f"{row['step']}/{total}",
        "loss": f"{_number(row['loss'], '.4f')} (floor {row['floor']:.3f})",
        "lr": f"{row['lr']:.2e}",
        "grad norm": _number(row["grad_norm"], ".3g"),
        "scale": f"{row['scale']:g}",
        "skipped": str(row["skipped"]),
        "clips/s": f"{row['clips_per_second']:.1f}",
        "data wait": f"{row['data_wait']:.0%}",
        "memory": f"{row['memory_gb']:.2f} GB",
        "ETA": clock(row["eta_seconds"]),
    }
    return "  ".join(f"{name} {value}" for name, value in cells.items())


def _short(row: Mapping[str, Any]) -> str:
    wait, rate = f"{row['data_wait']:.0%}", f"{row['clips_per_second']:.1f}"
    return f", loss {_number(row['loss'], '.3f')}, lr {row['lr']:.1e}, {rate} clips/s, wait {wait}"


def _number(value: float | None, form: str) -> str:
    return "not finite" if value is None else format(value, form)
