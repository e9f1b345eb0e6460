"""What an optimizer does with which parameter, and how its learning rate goes over the steps."""

import math
import re
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import Any

import torch
from torch import Tensor, nn

# CLIP's (Radford et al. 2021, table 18 for ViT; the released X-CLIP and CLIP4Clip use the same), instead of torch's
# 0.999 and 1e-8: gradients of a contrastive batch are noisy, and a long memory of them lags behind.
_BETAS = (0.9, 0.98)
_EPSILON = 1e-6
_NORM = re.compile(r"(norm\d*|_ln)\.(weight|bias)$")
_JOINT_BIASES = ("q_proj.bias", "k_proj.bias", "v_proj.bias")


class BertAdam(torch.optim.Optimizer):
    """The released recipe's Adam: no bias correction, decoupled decay, every tensor's gradient clipped to norm 1.

    m = 0.9 m + 0.1 g, v = 0.98 v + 0.02 g^2, p -= lr (m / (sqrt(v) + 1e-6) + weight_decay p), with g first scaled down
    to norm 1, tensor by tensor. The learning rate of a step is its group's `lr`; see `set_lr`.
    Source: X-CLIP (Ma et al. 2022) and CLIP4Clip (Luo et al. 2022) modules/optimization.py.
    Differs: their towers are fp16 tensors with fp16 moments, where 0.02 g^2 underflows to 0 and a step becomes
    momentum SGD, lr / 1e-6 * m. Here weights and moments are fp32 (under autocast), so that at the released 1e-7 the
    towers move far less than theirs did: tune their learning rate upwards, 1e-6 to 5e-6 first.
    """

    def __init__(self, groups: list[dict[str, Any]]):
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; gradients stay as they are. Takes no closure."""
        assert closure is None, "BertAdam takes no closure"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, lr=group["lr"], weight_decay=group["weight_decay"])

    def _update(self, parameter: Tensor, gradient: Tensor, *, lr: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if not state:
            state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        gradient = gradient * (1 / (gradient.norm() + 1e-6)).clamp(max=1)  # as torch's clip_grad_norm_
        mean = state["mean"].lerp_(gradient, 1 - _BETAS[0])
        square = state["square"].mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
        parameter -= lr * (mean / (square.sqrt() + _EPSILON) + weight_decay * parameter)


def parameter_groups(
    named_parameters: Iterable[tuple[str, nn.Parameter]],
    *,
    pretrained: AbstractSet[str],
    lr: float,
    pretrained_lr_scale: float,
    weight_decay: float,
    rule: str,
) -> list[dict[str, Any]]:
    """Groups of the trainable parameters: pretrained or new, with decay or without; empty ones are left out.

    pretrained: names whose peak learning rate is lr * pretrained_lr_scale (the released coef_lr).
    rule: "adamw" decays matrices only (two or more axes); "bertadam" all but names that contain "bias", as released:
        its exemption of LayerNorm gains looks for a name that no parameter has, so gains, logit scale, embeddings and
        X-CLIP's identity matrices are decayed too. "mmaction2" decays all but norms and biases; biases of queries, keys
        and values are decayed, since torch's joint `in_proj_bias` is not what MMEngine looks for, a name `bias`.
    A group: params, names, title, lr = peak_lr, weight_decay; primitives beside the tensors, as checkpoints need.
    """
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in named_parameters:
        if not parameter.requires_grad:
            continue
        decays = _decays(name, parameter, rule)
        title = f"{'pretrained' if name in pretrained else 'new'}, {'decay' if decays else 'no decay'}"
        peak = lr * pretrained_lr_scale if name in pretrained else lr
        rates = {"lr": peak, "peak_lr": peak, "weight_decay": weight_decay if decays else 0.0}
        group = groups.setdefault(title, {"params": [], "names": [], "title": title, **rates})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _decays(name: str, parameter: Tensor, rule: str) -> bool:
    if rule == "bertadam":
        return "bias" not in name
    if rule == "mmaction2":
        is_free = name.split(".")[-1] == "bias" and not name.endswith(_JOINT_BIASES)
        return not (is_free or _NORM.search(name))
    return parameter.ndim >= 2


def build_optimizer(name: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """The optimizer over the groups.

    name: "adamw" (torch's, betas 0.9 and 0.98, epsilon 1e-6 as in CLIP), "mmaction2" (torch's AdamW with its own
    constants, as MMAction2's configuration of CLIP4Clip leaves them) or "bertadam".
    """
    if name == "bertadam":
        return BertAdam(groups)
    if name == "mmaction2":
        return torch.optim.AdamW(groups)
    return torch.optim.AdamW(groups, betas=_BETAS, eps=_EPSILON)


def warmup_cosine(step: int, total: int, warmup: float) -> float:
    """Factor on the peak learning rate of a step: linear up to 1 over the warm-up, then a cosine to 0.

    step: 0 to total - 1.  warmup: share of the steps; the first of n of them has 1/n.

    >>> [round(warmup_cosine(step, 6, 1 / 3), 2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15]
    """
    rising = round(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def bertadam_schedule(step: int, total: int, warmup: float) -> float:
    """The released recipe's factor: x / warmup below warmup, then (1 + cos(pi x)) / 2, with x = step / total.

    Step 0 has 0, so the first update changes the moments only; the cosine is not rescaled and drops from 1 to 0.976 at
    the end of a warm-up of 0.1. Source: X-CLIP (Ma et al. 2022) modules/optimization.py, `warmup_cosine`.
    """
    x = step / total
    return x / warmup if x < warmup else 0.5 * (1 + math.cos(math.pi * x))


def mmaction2_schedule(step: int, total: int, warmup: float) -> float:
    """Factor of a step in MMAction2's recipe: linear from 0.05 to 1 over the warm-up, then a cosine to 0.

    warmup: share of the steps; the released half epoch of five is 0.1. The last step of the warm-up and the first after
    it have 1, and the cosine's length stays fractional where the warm-up ends inside a step.
    Source: MMAction2 1.2.0 configs/retrieval/clip4clip: LinearLR, then CosineAnnealingLR, turned from epochs to steps.

    >>> [round(mmaction2_schedule(step, 6, 1 / 2), 3) for step in range(6)]
    [0.05, 0.525, 1.0, 1.0, 0.75, 0.25]
    """
    rising = math.floor(warmup * total + 1e-9)  # 0.29 * 100 is 28.999...
    if step < rising:
        return 0.05 + 0.95 * step / max(1, rising - 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, total - warmup * total)))


SCHEDULES: dict[str, Callable[[int, int, float], float]] = {
    "adamw": warmup_cosine,
    "bertadam": bertadam_schedule,
    "mmaction2": mmaction2_schedule,
}


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group's learning rate to factor * its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor


@torch.no_grad()
def clamp_logit_scale_(parameter: Tensor, most: float) -> None:
    """Keeps the factor exp(parameter) on cosines at `most` or below, in place; 100 in CLIP and the released code."""
    parameter.clamp_(max=math.log(most))
