"""Fine-tuning from config to trained weights: prepared, resumed where a former start ended, trained, kept."""

import dataclasses
import logging
import time
from typing import Any

from xclip_module.finetune.facts import announce, facts_of, logged_rows
from xclip_module.finetune.files import BEST, LAST, newest_state, publish_best, resume
from xclip_module.finetune.loading import Loaded, Trained
from xclip_module.finetune.log import TrainingLog
from xclip_module.finetune.preparation import Training, choose_micro_batch, make_rules, make_step, prepare
from xclip_module.finetune.training_run import TrainingRun
from xclip_module.run import distributed
from xclip_module.run.folder import Run
from xclip_module.tasks.weights import Origin
from xclip_module.training.engine import fit

log = logging.getLogger(__name__)


def train(loaded: Loaded, run: Run) -> Trained:
    """Trains to the end and stores the best and the last weights as folders; resumes what a former start began.

    Raises ConfigError, DataError or WeightsError before any work for what cannot be; NonFiniteError when training
    diverges; see `engine.fit` for what is saved when it ends early.
    """
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
