"""Fine-tuning from config to trained weights; what cannot be trained is said before torch is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xclip_module.config import Config
from xclip_module.errors import ConfigError
from xclip_module.finetune.recipe import settle
from xclip_module.run.folder import Run

if TYPE_CHECKING:
    from xclip_module.finetune.loop import Trained


def finetune(config: Config, run: Run) -> Trained:
    """Trains to the end and stores the best and the last weights as folders; resumes what a former start began.

    Raises ConfigError, DataError or WeightsError before any work for what cannot be; NonFiniteError when training
    diverges; see `engine.fit` for what is saved when it ends early.
    """
    if config.model.head:
        why = "training changes the features that a head is for"
        raise ConfigError(
            "model.head", why=why, attempt="run_linear_probe.py --model.weights=runs/NAME/best afterwards"
        )
    config, loaded = settle(config, processes=run.world.size)
    from xclip_module.finetune.loop import train

    return train(config, loaded, run)
