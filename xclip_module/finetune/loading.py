"""What a training can be refused for before anything heavy is imported: its recipe, and its data."""

import dataclasses
from typing import Any, NamedTuple

from xclip_module.config import Config
from xclip_module.errors import ConfigError
from xclip_module.finetune.recipe import with_recipe
from xclip_module.tasks import Task, task_of
from xclip_module.tasks.weights import announce_weights


class Loaded(NamedTuple):
    """config: with the recipe's values in the open keys of section finetune.  data: of `task.load_training`."""

    config: Config
    task: Task
    data: Any


def load(config: Config) -> Loaded:
    """The task with its data. Raises ConfigError, DataError or WeightsError for what cannot be trained."""
    if config.model.head:
        why = "training changes the features that a head is for"
        attempt = "run_linear_probe.py --model.weights=runs/NAME/best afterwards"
        raise ConfigError("model.head", why=why, attempt=attempt)
    section = with_recipe(config.finetune, task_of(config).recipe(), data_name=config.data.name)
    config = dataclasses.replace(config, finetune=section)
    task = task_of(config)
    loaded = Loaded(config, task, task.load_training())
    announce_weights(config.model, config.data)
    return loaded
