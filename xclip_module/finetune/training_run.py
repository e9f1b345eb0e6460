"""The world outside of the training loop: a run with its folder, log and status."""

import contextlib
import logging
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xclip_module.finetune.clips import load_clips
from xclip_module.finetune.files import best_folder, export, save_state
from xclip_module.finetune.log import TrainingLog
from xclip_module.finetune.preparation import Training
from xclip_module.interface import Batch
from xclip_module.run.folder import Run
from xclip_module.sections import FIND

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRun:
    """An `engine.Outside` of one training in one run.

    start: of `time.monotonic`, when it would have begun had it never been stopped.
    """

    training: Training
    run: Run
    lines: TrainingLog
    micro_batch_size: int
    start: float

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """This process's share of the clips of every step."""
        training = self.training
        return load_clips(training.section, training.data, training.clips, self.run.world, (start, stop))

    def validate(self) -> dict[str, Any]:
        """Numbers of the present weights, logged; a monitored one that is undefined is said to be so."""
        judged, monitor = self.training.data.validation, self.training.section.monitor
        self.run.status.update(phase="validation")
        row = judged.measure(self.training.val, self.run)
        self.lines.validation(self.training.trainer.progress.step, row, judged.split)
        if row[monitor] is None:
            log.warning("%s is undefined on %s: it cannot choose a best step", monitor, judged.split)
        return row

    def keep_best(self) -> str:
        """Stores the present weights in the folder of their step."""
        return self.store(best_folder(self.training.trainer.progress.step))

    def store(self, folder: Path | str) -> str:
        """Exports the present weights to a folder below that of the run; their SHA-256."""
        is_half = self.training.section.export == "fp16"
        return export(self.training.model, self.training.tokenizer, self.run, folder, is_half=is_half)

    def save(self, state: dict[str, Any], step: int) -> None:
        """Writes a checkpoint, with what a resume must know beside the trainer."""
        facts = {
            "seconds": self.seconds,
            # A resume goes on with it: on another size the same step would round otherwise.
            "found": self.micro_batch_size if self.training.section.micro_batch_size == FIND else 0,
            "data": self.training.digest,
        }
        save_state({**state, "facts": facts}, step, self.run)

    def log(self, row: dict[str, Any]) -> None:
        """Hands a row to the log of the run."""
        self.lines.row(row)

    def deferred(self) -> contextlib.AbstractContextManager[None]:
        """Signals of the run wait until the body has ended."""
        return self.run.signals.deferred()

    @property
    def seconds(self) -> float:
        """How long the training has taken so far, all its starts together."""
        return round(time.monotonic() - self.start, 1)
