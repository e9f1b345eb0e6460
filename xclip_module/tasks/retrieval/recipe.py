"""How a training on pairs of sentence and video goes where the user leaves it open."""

from xclip_module.config import DataConfig
from xclip_module.tasks.recipe import Recipe

_RECIPE = Recipe(
    # CLIP4Clip (Luo et al. 2022) section 4: no augmentation, 5 epochs of 128 pairs. Its towers' 1e-7 is for fp16
    # weights, which that moves as far as 1e-6 does ours.
    values={
        "epochs": 5,
        "batch_size": 128,
        "lr": 1e-4,
        "pretrained_lr_scale": 0.01,
        "crop_scale": 1.0,
        "colour": 0.0,
        "jitter_seconds": 0.0,
        "monitor": "t2v/R@1",
    },
    # What only clips of a long video have.
    unused=("jitter_seconds", "hard_negatives", "balance_phases", "clip_stride_seconds", "cache_fps", "prompt_sets"),
    contents="sentences of whole videos",
    monitors=("t2v/R@1",),
    refused_losses={"classification": "a softmax over the sentences of all videos is no classification"},
)


def recipe(data: DataConfig) -> Recipe:
    """The recipe of a benchmark's pairs, the same for all of them."""
    return _RECIPE
