"""The files of a training below its run folder: checkpoints, the best and the last weights."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from xclip_module.errors import DataError, WeightsError
from xclip_module.models import save_model
from xclip_module.models.tokenizer import ClipTokenizer
from xclip_module.run import distributed, storage
from xclip_module.run.folder import CHECKPOINTS, Run
from xclip_module.training import checkpoint
from xclip_module.training.engine import Trainer, TrainingProgress

BEST, LAST = "best", "last"
# Checkpoints that are kept: a damaged newest one costs the steps since the one before.
_KEPT = 2
_FORMAT = 1
_ANEW = "another --run.name=NAME to begin anew"


def newest_state(run: Run) -> dict[str, Any] | None:
    """The newest whole checkpoint, chosen once for all processes."""
    folder = run.folder / CHECKPOINTS
    if run.world.is_main:
        storage.make_folder(folder)
    newest = checkpoint.newest(folder) if run.world.is_main else None
    # Chosen by one: where a file system shows the newest late, another would resume from the one before.
    path = distributed.gather(newest.path if newest else None, run.world)[0]
    if path is None:
        return None
    state = newest.state if newest else checkpoint.read(path)
    if state.get("format") != _FORMAT:
        why = f"format {state.get('format')!r}, this version reads {_FORMAT}"
        raise WeightsError("checkpoint of another version", path, why, "another --run.name=NAME")
    return state


def resume(trainer: Trainer, state: dict[str, Any], data: str, run: Run) -> dict[str, Any]:
    """Puts the trainer where the checkpoint was and gives the facts beside it; `data` = digest of the training data.

    Raises WeightsError for a checkpoint of other weights and where the best weights are gone or damaged, DataError for
    other training data: what was learned so far and what comes would not be one training.
    """
    try:
        trainer.restore(state)
        facts = dict(state["facts"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise WeightsError("checkpoint of other weights", run.folder / CHECKPOINTS, why, _ANEW) from error
    if facts["data"] != data:
        why = "videos, labels or sentences of the training or validation split are not those of the checkpoint"
        raise DataError("training data has changed", run.folder, why, _ANEW)
    if trainer.progress.best_step >= 0 and run.world.is_main:
        check_best(run, trainer.progress)
    return facts


def check_best(run: Run, progress: TrainingProgress) -> None:
    """Raises WeightsError where the best weights are not those that were noted."""
    folder = run.folder / best_folder(progress.best_step)
    try:
        digest = _sum(folder)
    except OSError as error:
        raise WeightsError("best weights are gone", folder, error.strerror or str(error), _ANEW) from error
    if digest != progress.best_sum:
        raise WeightsError("damaged best weights", folder, "their SHA-256 is not the one noted", _ANEW)


def save_state(state: dict[str, Any], step: int, run: Run) -> None:
    """Writes a checkpoint; then removes best weights that it does not know any more."""
    if not run.world.is_main:
        return
    path = checkpoint.save(run.folder / CHECKPOINTS, {"format": _FORMAT, **state}, step=step, keep=_KEPT)
    # After the checkpoint: killed in between, one folder too many is left, and never one too few.
    current = best_folder(state["progress"]["best_step"]).name
    for folder in (run.folder / CHECKPOINTS).glob("best-*"):
        if folder.name != current:
            shutil.rmtree(folder, ignore_errors=True)
    run.status.update(checkpoint=str(path), step=step)


def best_folder(step: int) -> Path:
    """Of the best weights, below the run folder: each has its own, so that a kill between weights and checkpoint
    costs neither the former nor the new ones.
    """
    return Path(CHECKPOINTS, f"best-{step:08d}")


def export(model: Any, tokenizer: ClipTokenizer, run: Run, name: str | Path, *, is_half: bool) -> str:
    """Writes the weights as a folder that `--model.weights` takes; gives the SHA-256 of its tensors' file."""
    if not run.world.is_main:
        return ""
    folder = run.folder / name
    save_model(model, folder, tokenizer=tokenizer, is_half=is_half)
    return _sum(folder)


def publish_best(run: Run, progress: TrainingProgress) -> None:
    """Copies the best weights, verified, to where users look for them."""
    if run.world.is_main:
        check_best(run, progress)
        for path in sorted((run.folder / best_folder(progress.best_step)).iterdir()):
            storage.write_bytes(run.folder / BEST / path.name, path.read_bytes())


def _sum(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
