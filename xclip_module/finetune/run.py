"""Fine-tuning from config to trained weights: model, clips, optimizer and loop put together."""

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from xclip_module.config import Config
from xclip_module.errors import ConfigError
from xclip_module.features.encoding import to_pixels
from xclip_module.finetune.files import (
    BEST,
    LAST,
    best_folder,
    export,
    newest_state,
    publish_best,
    save_state,
    take_over,
)
from xclip_module.finetune.log import TrainingLog
from xclip_module.finetune.recipe import with_recipe
from xclip_module.interface import Batch, Corpus
from xclip_module.models import load_tokenizer
from xclip_module.models.parameters import checkpoint_activations_, freeze_, logit_scale, pretrained_names
from xclip_module.models.tokenizer import ClipTokenizer
from xclip_module.run import distributed, precision
from xclip_module.run.collectives import average_gradients
from xclip_module.run.distributed import World
from xclip_module.run.launch import Run
from xclip_module.sections import FIND
from xclip_module.tasks import sentences
from xclip_module.tasks.localisation import score as assemble
from xclip_module.tasks.localisation import training as localisation_training
from xclip_module.tasks.retrieval import training as retrieval_training
from xclip_module.tasks.retrieval.score import is_retrieval
from xclip_module.tasks.training_data import (
    Clips,
    TrainingData,
    load_clips,
    made_up_batch,
    prepare_clips,
    prepare_validation,
)
from xclip_module.training.engine import Hooks, Rules, Trainer, fit
from xclip_module.training.grad_cache import Calls, StepLoss, backward
from xclip_module.training.memory import find_micro_batch
from xclip_module.training.optim import SCHEDULES, build_optimizer, clamp_logit_scale_, parameter_groups

log = logging.getLogger(__name__)


class Trained(NamedTuple):
    """What training leaves: the configuration with the kept weights, and what results and environment say of it."""

    config: Config
    facts: dict[str, Any]
    settings: dict[str, Any]


class Kind(NamedTuple):
    """What differs between moments of long videos and pairs of sentence and video.

    corpus: the videos of every split that a run needs.  load: see `TrainingData`.
    """

    corpus: Callable[[Config], Corpus]
    load: Callable[[Config, Any, World], TrainingData]


class Training(NamedTuple):
    """A training that is ready to begin.

    val: this process's videos to validate on, with their frames; has_val: is there one on any process?
    start: digest of the weights it begins with.  digest: of clips, labels and sentences.  total: steps.
    frozen: number of parameters that stay as they are.
    """

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


def finetune(config: Config, run: Run) -> Trained:
    """Trains to the end and stores the best and the last weights as folders; goes on where a former run ended.

    Raises ConfigError, DataError or WeightsError before any work for what cannot be; NonFiniteError when training
    diverges; see `engine.fit` for what is saved when it ends early.
    """
    if config.model.head:
        why = "training changes the features that a head is for"
        raise ConfigError(
            "model.head", why=why, attempt="run_linear_probe.py --model.weights=runs/NAME/best afterwards"
        )
    config = with_recipe(config)
    training = prepare(config, run)
    state = newest_state(run)
    kept: dict[str, Any] = {"found": 0, "seconds": 0.0}
    if state:
        kept = take_over(training.trainer, state, training.digest, run)
        log.info("goes on from step %d of %d", training.trainer.progress.step, training.total)
    progress = training.trainer.progress
    run.rewind(lambda row: row["step"] <= (progress.validated if "split" in row else progress.step))
    is_open = config.finetune.micro_batch_size == FIND
    micro = (kept["found"] if is_open else 0) or micro_batch_size(config, training, run.world)
    rules = make_rules(config, training, micro)
    _announce(config, training, rules, micro, run)
    start = time.monotonic()

    def facts() -> dict[str, Any]:
        seconds = round(kept["seconds"] + time.monotonic() - start, 1)
        return {"seconds": seconds, "found": micro if is_open else 0, "data": training.digest}

    end = _train(config, training, rules, micro, run, facts)
    return _conclude(config, training, rules, end, run, {"micro_batch_size": micro, "seconds": facts()["seconds"]})


def _train(
    config: Config, training: Training, rules: Rules, micro: int, run: Run, facts: Callable[[], dict[str, Any]]
) -> str:
    """The loop with everything that it asks of the outside; says why it ended."""
    model, world = training.model, run.world
    group = distributed.step_group(world)
    step = training.trainer.progress.step
    is_half = config.finetune.export == "fp16"

    def store(place: Path | str) -> str:
        return export(model, training.tokenizer, run, place, is_half=is_half)

    with TrainingLog(run, step=step, total=rules.total) as lines:
        hooks = Hooks(
            batches=lambda start, stop: load_clips(config, training.data, training.clips, world, (start, stop)),
            gradients=gradients(config, training, world, micro, group),
            synchronise=lambda: average_gradients(model.parameters(), world, group),
            after_step=lambda: clamp_logit_scale_(logit_scale(model), config.finetune.max_logit_scale),
            validate=lambda: _validated(config, training, run, lines),
            keep_best=lambda: store(best_folder(training.trainer.progress.step)),
            save=lambda state, number: save_state({**state, "facts": facts()}, number, run),
            log=lines.row,
            held=run.signals.deferred,
        )
        model.train()
        end = fit(training.trainer, rules, hooks)
    model.eval()
    store(LAST)
    return end


def kind_of(config: Config) -> Kind:
    """The kind of the configured data."""
    if is_retrieval(config.data):
        return Kind(retrieval_training.corpus_of, retrieval_training.load)
    return Kind(localisation_training.labelled_corpus, localisation_training.load)


def prepare(config: Config, run: Run, *, is_trial: bool = False) -> Training:
    """Everything that training needs, cheap mistakes first.

    is_trial: clips straight from the videos, and one val video, so that little is decoded and stored.
    """
    section, world = config.finetune, run.world
    if section.batch_size < world.size:
        why = f"{world.size} processes share it, one clip each at least"
        raise ConfigError(f"finetune.batch_size={section.batch_size}", why=why, attempt="a larger batch")
    model: Any = assemble.build_model(config, world)
    # Now and not when weights are stored: its files may change while the run is live.
    tokenizer = load_tokenizer(sentences.tokenizer_place(config))
    data = kind_of(config).load(config, model, world)
    frozen = freeze_(model, section.freeze_layers)
    if section.activation_checkpointing:
        checkpoint_activations_(model)
    groups = parameter_groups(
        model.named_parameters(),
        pretrained=pretrained_names(model),
        lr=section.lr,
        pretrained_lr_scale=section.pretrained_lr_scale,
        weight_decay=section.weight_decay,
        rule=section.optimizer,
    )
    chosen = precision.choose(config.run.precision, world.device)
    run.status.update(phase="frames")
    clips = prepare_clips(data, source="video" if is_trial else config.finetune.frames)
    val = prepare_validation(data, most=1 if is_trial else len(data.validation.videos))
    has_val = any(distributed.gather(bool(val), world))
    digest = f"{clips.plan.training.digest} {data.validation.digest}"
    total = math.ceil(section.epochs * clips.plan.steps_per_epoch)
    trainer = Trainer(
        model,
        build_optimizer(section.optimizer, groups),
        torch.amp.GradScaler(world.device.type, enabled=chosen == "fp16"),
        factor=lambda step: SCHEDULES[section.optimizer](step, total, section.warmup),
    )
    return Training(
        model, tokenizer, data, clips, val, has_val, trainer, model.digest(), digest, chosen, total, len(frozen)
    )


def gradients(
    config: Config, training: Training, world: World, micro: int, group: Any
) -> Callable[[Batch, int], StepLoss]:
    """What writes the gradients of a batch at a step, this process's part of the mean."""
    calls = make_calls(training.model, training.precision, world.device)

    def compute(batch: Batch, step: int) -> StepLoss:
        return backward(
            batch,
            calls=calls,
            loss=config.finetune.loss,
            micro_batch_size=micro,
            world=world,
            scale=training.trainer.scaler.scale,
            seed=_step_seed(config.run.seed, step),
            group=group,
        )

    return compute


def make_calls(model: Any, chosen: str, device: torch.device) -> Calls:
    """What a step asks of the model: towers in the chosen precision, head in float32."""

    def cast(function: Callable) -> Callable:
        def call(*arguments: Tensor) -> Any:
            with precision.autocast(chosen, device):
                return function(*arguments)

        return call

    return Calls(
        encode_text=cast(model.encode_text),
        encode_video=cast(model.encode_video),
        similarity=model.similarity,
        to_pixels=lambda frames: to_pixels(frames, model.picture, device),
        # A signal arrives as an exception by itself.
        poll=lambda: None,
    )


def micro_batch_size(config: Config, training: Training, world: World) -> int:
    """The configured clips in one forward, all of a share for 0; found by trying for `auto`, the same everywhere."""
    share = -(-config.finetune.batch_size // world.size)
    if config.finetune.micro_batch_size != FIND:
        return min(config.finetune.micro_batch_size or share, share)
    alone = World(0, 1, world.device)

    def trial(size: int) -> None:
        batch = made_up_batch(training.data, share)
        # As in a step: the optimizer's two moments of every weight are there, too.
        moments = [torch.zeros_like(p) for p in training.model.parameters() if p.requires_grad for _ in range(2)]
        gradients(config, training, alone, size, None)(batch, 0)
        del moments

    training.model.train()
    try:
        found = min(distributed.gather(find_micro_batch(trial, share, world.device), world))
    finally:
        training.model.zero_grad(set_to_none=True)
    log.info("micro_batch_size=auto: %d of %d clips in one forward", found, share)
    return found


def make_rules(config: Config, training: Training, micro: int) -> Rules:
    """When what happens, as configured; `micro` clips in a forward."""
    section = config.finetune
    attempt = f"--finetune.micro_batch_size={max(1, micro // 2)}"
    if micro <= 1:
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


def _announce(config: Config, training: Training, rules: Rules, micro: int, run: Run) -> None:
    parameters = list(training.model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    log.info(
        "training %.1f of %.1f M parameters in %s on %s: %d clips of %d videos, %d steps of %d clips (%d in a forward)",
        trained / 1e6,
        sum(p.numel() for p in parameters) / 1e6,
        training.precision,
        "one process" if run.world.size == 1 else f"{run.world.size} processes",
        training.clips.plan.clips_per_epoch,
        len(training.clips.plan.training.videos),
        training.total,
        config.finetune.batch_size,
        micro,
    )
    if not rules.validate_every:
        log.warning("no val video: nothing chooses a best step, the last weights are kept")
    elif not rules.monitor:
        log.warning("validated on %s; the last weights are kept", training.data.validation.in_words)
    if (left_out := _left_out(training)) != "no training video":
        log.warning("left out of training: %s", left_out)


def _validated(config: Config, training: Training, run: Run, lines: TrainingLog) -> dict[str, Any]:
    judged = training.data.validation
    run.status.update(phase="validation")
    row = judged.measure(training.val, run)
    lines.validation(training.trainer.progress.step, row, judged.split)
    if row[config.finetune.monitor] is None:
        log.warning("%s is undefined on %s: it cannot choose a best step", config.finetune.monitor, judged.split)
    return row


def _conclude(config: Config, training: Training, rules: Rules, end: str, run: Run, facts: dict[str, Any]) -> Trained:
    """The last weights as a folder, the kept ones verified, and what the report says of the training."""
    progress = training.trainer.progress
    has_best = progress.best_step >= 0
    kept = run.folder / (BEST if has_best else LAST)
    if has_best:
        publish_best(run, progress)
    rows = distributed.gather(_curve(run) if run.world.is_main else [], run.world)[0]
    section, plan = config.finetune, training.clips.plan
    found = {
        "weights": f"{config.model.weights} ({training.start[:12]})",
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
        "left out": _left_out(training),
        "skipped_steps": progress.skipped,
        "precision": _PRECISIONS[training.precision],
        "frozen": f"{training.frozen} parameters" if training.frozen else "nothing",
        **facts,
        "curve": [{name: row[name] for name in ("step", "loss", "floor", "lr", "grad_norm")} for row in rows],
        "validations": progress.validations,
    }
    chosen = dataclasses.replace(config.model, weights=str(kept), tokenizer="")
    settings = {"batch_size": section.batch_size, **facts}
    return Trained(dataclasses.replace(config, model=chosen), found, settings)


def _left_out(training: Training) -> str:
    """Training videos that are missing or cannot be read, with the reason."""
    found = {**training.data.missing, **training.clips.skipped}
    return "; ".join(f"{name} ({why})" for name, why in sorted(found.items())) or "no training video"


def _why_last(training: Training) -> str:
    if not training.has_val:
        return "last (no val split)"
    return "last (undefined on val)" if training.data.validation.can_choose else "last (no split to choose on)"


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


def _curve(run: Run) -> list[dict[str, Any]]:
    lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if "loss" in row]


def _step_seed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest()) >> 1
