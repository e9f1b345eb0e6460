"""How a training on labelled operations goes where the user leaves it open."""

from xclip_module.config import DataConfig
from xclip_module.tasks.recipe import Recipe

# Surgical fine-tuning of CLIP's towers as a start.
_VALUES = {
    "epochs": 10,
    "batch_size": 64,
    "lr": 1e-4,
    "pretrained_lr_scale": 0.1,
    "crop_scale": 0.7,
    "colour": 0.2,
    "jitter_seconds": 2.0,
    "monitor": "mAP@0.5",
}
# The demo's towers are small, and go a little further from shipped weights.
_DEMO = {**_VALUES, "epochs": 6, "batch_size": 16, "pretrained_lr_scale": 1.0, "crop_scale": 1.0}
_RECIPE = Recipe(
    values=_VALUES,
    unused=("one_sentence",),
    contents="moments of long videos",
    monitors=("mAP@0.5", "AUROC", "AUPRC", "R1@0.5", "mIoU"),
    refused_losses={},
)


def recipe(data: DataConfig) -> Recipe:
    """The recipe of a data set of operations."""
    return _RECIPE._replace(values=_DEMO) if data.name == "demo" else _RECIPE
