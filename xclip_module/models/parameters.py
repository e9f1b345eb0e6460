"""Which parameters of a model come pretrained, stay frozen, or are recomputed; for every family."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from xclip_module.models.ms_xclip import MicrosoftXClip
from xclip_module.models.two_tower import TwoTower

Model = TwoTower | MicrosoftXClip

_TOWERS = ("frame_encoder.", "text_encoder.")
# What lies under or in the numbered blocks of a tower; what lies over them (last norm, projection) matches nowhere.
_BOTTOM = re.compile(r"(?:text|vision)_model\.(?:embeddings|pre_lay(?:er|r)norm|encoder\.layers\.(?P<block>\d+))\.")
_BLOCK = re.compile(r"(?:text|vision)_model\.encoder\.layers\.\d+$")
_PATCHES = "embeddings.patch_embedding.weight"


def pretrained_names(model: Model) -> set[str]:
    """Names of the parameters that a checkpoint brings trained, and that take the smaller learning rate.

    Two towers: the towers and the logit scale (the released names with `clip.`); temporal header and head are new, also
    where a checkpoint has them. ms-xclip (Ni et al. 2022) has no new part: all.
    Source: X-CLIP (Ma et al. 2022) main_xclip.py, `prep_optimizer`.
    """
    names = {name for name, _ in model.named_parameters()}
    if isinstance(model, MicrosoftXClip):
        return names
    return {name for name in names if name.startswith(_TOWERS) or name == "logit_scale"}


def freeze_(model: Model, layers: int) -> list[str]:
    """Stops the training of the towers' lowest blocks and of all that lies under them; gives the frozen names.

    layers: blocks of each tower that are frozen, with token, patch, class and position embeddings and the norm before
    the blocks (so 0 freezes these only); -1 = nothing. Last norms, projections, logit scale, temporal header and head
    always train. A patch embedding over three frames (linear_patch=3d) trains, since no pretrained CLIP has one.
    Source: X-CLIP (Ma et al. 2022) and CLIP4Clip (Luo et al. 2022), --freeze_layer_num. Differs: with
    linear_patch=3d a slip in the released test freezes nothing; here the rest is frozen as meant. ms-xclip (Ni et al.
    2022) by analogy: message tokens freeze with their block; frame integration and prompt generator train.
    """
    if layers < 0:
        return []
    trains = _PATCHES if isinstance(model, TwoTower) and model.spec.patch_frames == 3 else None
    frozen = []
    for name, parameter in model.named_parameters():
        bottom = _BOTTOM.search(name)
        # What lies under the blocks has no number, and is frozen with any number of them.
        if bottom and int(bottom["block"] or -1) < layers and not (trains and name.endswith(trains)):
            parameter.requires_grad = False
            frozen.append(name)
    return frozen


def checkpoint_activations_(model: Model) -> None:
    """Lets the towers keep one activation per block and compute the others again in the backward pass (train mode).

    Temporal header and head keep theirs: they are small beside the towers. Dropout is repeated, not drawn anew. Not by
    transformers' own switch, whose name changes in version 6 and which lets gradients into frozen embeddings.
    """
    for name, block in model.named_modules():
        if _BLOCK.search(name):
            block.forward = partial(_recompute, block, block.forward)


def logit_scale(model: Model) -> nn.Parameter:
    """The learned logarithm of the factor on cosines."""
    return model.model.logit_scale if isinstance(model, MicrosoftXClip) else model.logit_scale


def _recompute(block: nn.Module, forward: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*arguments, **options)
    return checkpoint(forward, *arguments, use_reentrant=False, **options)
