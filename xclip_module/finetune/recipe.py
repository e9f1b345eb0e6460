"""What the section finetune means where it is left open: each kind of data has values of its own."""

import dataclasses
from typing import NamedTuple

from xclip_module.config import Config, FinetuneConfig
from xclip_module.errors import ConfigError
from xclip_module.tasks.retrieval.score import is_retrieval


class Recipe(NamedTuple):
    """The values of the keys whose default says so."""

    epochs: float
    batch_size: int
    lr: float
    pretrained_lr_scale: float
    crop_scale: float
    colour: float
    jitter_seconds: float
    monitor: str


# Surgical fine-tuning of CLIP's towers as a start; the demo's are small, and go a little further from shipped weights.
_LOCALISATION = Recipe(
    epochs=10,
    batch_size=64,
    lr=1e-4,
    pretrained_lr_scale=0.1,
    crop_scale=0.7,
    colour=0.2,
    jitter_seconds=2.0,
    monitor="mAP@0.5",
)
_DEMO = _LOCALISATION._replace(epochs=6, batch_size=16, pretrained_lr_scale=1.0, crop_scale=1.0)
# CLIP4Clip (Luo et al. 2022) section 4: no augmentation, 5 epochs of 128 pairs. Its towers' 1e-7 is for fp16 weights,
# which that moves as far as 1e-6 does ours.
_RETRIEVAL = Recipe(
    epochs=5,
    batch_size=128,
    lr=1e-4,
    pretrained_lr_scale=0.01,
    crop_scale=1.0,
    colour=0.0,
    jitter_seconds=0.0,
    monitor="t2v/R@1",
)
_OF_RETRIEVAL = ("t2v/R@1",)
# What clips of long videos have and pairs have not, and the other way round.
_ONLY_LOCALISATION = (
    *("jitter_seconds", "hard_negatives", "balance_phases", "clip_stride_seconds", "cache_fps", "prompt_sets"),
)
_ONLY_RETRIEVAL = ("one_sentence",)


def with_recipe(config: Config) -> Config:
    """The configuration with the data's own values where the section finetune leaves them open.

    Raises ConfigError for what is set and does not apply to this kind of data.
    """
    section, defaults = config.finetune, FinetuneConfig()
    is_paired = is_retrieval(config.data)
    recipe = _RETRIEVAL if is_paired else _DEMO if config.data.name == "demo" else _LOCALISATION
    own = {name: value for name, value in recipe._asdict().items() if getattr(section, name) == getattr(defaults, name)}
    for name in _ONLY_LOCALISATION if is_paired else _ONLY_RETRIEVAL:
        value = getattr(section, name)
        if value and value != getattr(defaults, name):
            what = "sentences of whole videos" if is_paired else "moments of long videos"
            raise ConfigError(f"finetune.{name}", why=f"{config.data.name} has {what}", attempt="leave it out")
    if is_paired and section.loss == "classification":
        why = "a softmax over the sentences of all videos is no classification"
        raise ConfigError("finetune.loss=classification", why=why, attempt="--finetune.loss=multi_positive")
    if (own.get("monitor", section.monitor) in _OF_RETRIEVAL) != is_paired:
        why = f"{config.data.name} is judged by other numbers"
        raise ConfigError(
            f"finetune.monitor={section.monitor}", why=why, attempt=f"--finetune.monitor={recipe.monitor}"
        )
    return dataclasses.replace(config, finetune=dataclasses.replace(section, **own))
