"""The linear probe from config to scorer: what it can be refused for at once, then everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xclip_module.config import Config
from xclip_module.probe.corpus import load_probe_data
from xclip_module.run.folder import Run
from xclip_module.tasks.weights import announce_weights

if TYPE_CHECKING:
    from xclip_module.tasks import Task
    from xclip_module.tasks.localisation.load import LocalisationData
    from xclip_module.tasks.localisation.scorers import HeadScorer


def fit(config: Config, run: Run) -> tuple[Task, LocalisationData, HeadScorer]:
    """Fits the heads, stores them as `head.safetensors`, and gives all that scoring needs; resumes where it was cut.

    Raises ConfigError, DataError or WeightsError before any work for what cannot be, NonFiniteError for features or
    fits that are not finite.
    """
    data = load_probe_data(config)
    announce_weights(config.model, config.data)
    # After the cheap mistakes: importing torch takes seconds.
    from xclip_module.probe.head import fit_head

    task, scorer = fit_head(config, data, run)
    return task, data, scorer
