"""Fine-tuning from config to trained weights: prepared, resumed where a former start ended, trained, kept."""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from xclip_module.finetune.files import BEST, LAST, best_folder, export, newest_state, publish_best, resume, save_state
from xclip_module.finetune.loading import Loaded, Trained
from xclip_module.finetune.log import TrainingLog, announce, facts_of, logged_rows
from xclip_module.finetune.preparation import Training, choose_micro_batch, load_clips, make_rules, make_step, prepare
from xclip_module.interface import Batch
from xclip_module.run import distributed
from xclip_module.run.folder import Run
from xclip_module.sections import FIND
from xclip_module.tasks.weights import Origin
from xclip_module.training.engine import fit

log = logging.getLogger(__name__)


def train(loaded: Loaded, run: Run) -> Trained:
    """See `run.finetune`."""
    config, training = loaded.config, prepare(loaded, run)
    former = _resume(training, run)
    micro_batch_size = choose_micro_batch(training, run.world, former=former["found"])
    # As if all starts had been one: what the former ones took counts.
    start = time.monotonic() - former["seconds"]
    end, seconds = _train(training, micro_batch_size, start, run)
    if training.trainer.progress.best_step >= 0:
        publish_best(run, training.trainer.progress)
    rows = distributed.gather(logged_rows(run) if run.world.is_main else [], run.world)[0]
    kept = run.folder / (BEST if training.trainer.progress.best_step >= 0 else LAST)
    effort = {"micro_batch_size": micro_batch_size, "seconds": seconds}
    model = dataclasses.replace(config.model, weights=str(kept), tokenizer="")
    return Trained(
        config=dataclasses.replace(config, model=model),
        origin=Origin(
            training=facts_of(training, end, rows, weights=config.model.weights, effort=effort),
            settings={"batch_size": training.section.batch_size, **effort},
        ),
    )


def _resume(training: Training, run: Run) -> dict[str, Any]:
    """Puts the trainer where the newest checkpoint was; its facts, those of a fresh training where there is none."""
    # "found": the micro-batch that a former start found by trying, 0 = none.
    former: dict[str, Any] = {"found": 0, "seconds": 0.0}
    if state := newest_state(run):
        former = resume(training.trainer, state, training.digest, run)
        log.info("goes on from step %d of %d", training.trainer.progress.step, training.total)
    progress = training.trainer.progress
    # Rows behind the checkpoint will be written again; the validation of its own step may still be to come.
    run.rewind(lambda row: row["step"] <= (progress.validated if "split" in row else progress.step))
    return former


def _train(training: Training, micro_batch_size: int, start: float, run: Run) -> tuple[str, float]:
    """The loop, then the last weights as a folder; why it ended, and its seconds."""
    rules = make_rules(training, micro_batch_size)
    announce(training, rules, micro_batch_size, run.world)
    maker = make_step(training, run.world, micro_batch_size, group=distributed.step_group(run.world))
    with TrainingLog(run, step=training.trainer.progress.step, total=rules.total) as lines:
        outside = TrainingRun(training, run, lines, micro_batch_size, start)
        training.model.train()
        end = fit(training.trainer, maker, rules, outside)
    training.model.eval()
    outside.store(LAST)
    return end, outside.seconds


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """The world outside of the training loop, an `engine.Outside`: a run with its folder, log and status.

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
