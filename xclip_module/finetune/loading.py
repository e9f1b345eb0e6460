"""What training begins with and leaves, and what it can be refused for before anything heavy is imported."""

import dataclasses
from typing import Any, NamedTuple

from xclip_module.config import Config
from xclip_module.errors import ConfigError
from xclip_module.finetune.recipe import with_recipe
from xclip_module.tasks import Task, task_of
from xclip_module.tasks.weights import Origin, announce_weights


class Loaded(NamedTuple):
    """config: with the recipe's values in the open keys of section finetune.  data: of `task.load_training`."""

    config: Config
    task: Task
    data: Any


class Trained(NamedTuple):
    """What training leaves: the configuration with the kept weights, and what results and environment say of them."""

    config: Config
    origin: Origin


def load(config: Config, *, processes: int, is_trial: bool = False) -> Loaded:
    """The task with its data. Raises ConfigError, DataError or WeightsError for what cannot be trained.

    is_trial: the weights wait until all videos have been looked at.
    """
    if config.model.head:
        why = "training changes the features that a head is for"
        attempt = "run_linear_probe.py --model.weights=runs/NAME/best afterwards"
        raise ConfigError("model.head", why=why, attempt=attempt)
    section = with_recipe(config.finetune, task_of(config).recipe(), data_name=config.data.name)
    if section.batch_size < processes:
        why = f"{processes} processes share it, one clip each at least"
        raise ConfigError(f"finetune.batch_size={section.batch_size}", why=why, attempt="a larger batch")
    config = dataclasses.replace(config, finetune=section)
    if not is_trial:
        announce_weights(config.model, config.data)
    task = task_of(config)
    return Loaded(config, task, task.load_training())
