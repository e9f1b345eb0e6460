"""Trains a model that labels every window of a whole video at once: its loss, and a fit that goes on bit by bit.

D width of a feature, Q queries (rows), M windows of a video in time order, S stages, G rows of an exclusive group.

A step is one video. Its dropout is a function of (seed, epoch, video), the order of the videos one of (seed, epoch), so
that a checkpoint holds no state of a generator.

It has a loop of its own beside the one in `engine`, whose bytes it cannot have: it counts in epochs, keeps the best
weights and the curve inside its checkpoints, saves none in the middle of an epoch, does not validate before the first,
and ends at a gradient that is not finite, where `engine` skips the step.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xclip_module.errors import NonFiniteError, WeightsError
from xclip_module.training import checkpoint
from xclip_module.training.optim import build_optimizer, parameter_groups, set_lr, warmup_cosine
from xclip_module.training.seeds import seed_of

# MS-TCN's lambda and tau (Farha & Gall, CVPR 2019); yabufarha/ms-tcn clamps the square, at 16.
_SMOOTH_WEIGHT = 0.15
_SMOOTH_MOST = 4.0
# A damaged newest checkpoint costs one epoch.
_KEPT = 2


class VideoSequence(NamedTuple):
    """One video to learn from.

    video: its name, which the errors and the dropout go by.
    features: [M, D] float32, standardised.  labels, known: [Q, M] bool; a label counts where it is known.
    """

    video: str
    features: Tensor
    labels: Tensor
    known: Tensor


class SequenceRecipe(NamedTuple):
    """How long and how fast; lr is AdamW's peak, a cosine takes it to 0 over the epochs."""

    epochs: int
    seed: int
    lr: float = 5e-4
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0


class SequenceFit(NamedTuple):
    """What a fit found.

    state: state dict of the best epoch, on the CPU.  best_epoch: counted from 1.
    best: its val number; None where no epoch had one, then the best epoch is the last.
    curve: per epoch {"epoch", "loss" (mean over the videos), "val" (None where undefined)}.
    """

    state: dict[str, Tensor]
    best_epoch: int
    best: float | None
    curve: list[dict[str, Any]]


# Of logits [S, Q, M] and the video they belong to; such as `sequence_loss` with weights and groups filled in.
SequenceLoss = Callable[[Tensor, VideoSequence], Tensor]


def sequence_loss(
    logits: Tensor, sequence: VideoSequence, *, weights: Tensor, exclusive: Sequence[Sequence[int]]
) -> Tensor:
    """Scalar loss of one video: the sum of three terms, each the mean over the stages; a term without cells is 0.

    Cross-entropy of each exclusive group's softmax, over the times at which all its rows are known and exactly one is
    true; binary cross-entropy of the other rows' sigmoids, over their known cells; and 0.15 * T-MSE of each group and
    of the other rows: min(|a[m] - a[m - 1]|, 4) ** 2 with a = log-probability of being true, no gradient through
    m - 1, over the cells of which both times are known (for a group: all its rows). A cell that is unknown, and a whole
    group at a time at which one of its rows is, gets no gradient.

    logits: [S, Q, M].  weights: [Q, 2], of a cell where the row is false and where it is true; a group takes the latter
    of its true row.  exclusive: groups of rows, disjoint.

    Source: MS-TCN (Farha & Gall, CVPR 2019) section 3.3, L_cls and L_T-MSE, and yabufarha/ms-tcn model.py.
    Differs: mean over stages instead of sum, so that the rate does not depend on their number; rows that stand alone;
    a weighted term is divided by the number of its cells, not by the sum of their weights, which would undo the weight
    of a class in a video that shows little else (TeCNO; Czempiel et al., MICCAI 2020, has no T-MSE either).
    """
    labels, known, weights = sequence.labels, sequence.known, weights.to(logits)
    total = logits.new_zeros(())
    for group in map(list, exclusive):
        total = total + _group_loss(logits[:, group], labels[group], known[group], weights[group])
    grouped = {row for group in exclusive for row in group}
    alone = [row for row in range(len(labels)) if row not in grouped]
    return total + _row_loss(logits[:, alone], labels[alone], known[alone], weights[alone])


def fit_sequences(
    make_model: Callable[[], nn.Module],
    sequences: Sequence[VideoSequence],
    *,
    loss: SequenceLoss,
    validate: Callable[[nn.Module], float | None],
    recipe: SequenceRecipe,
    folder: Path,
    key: str,
) -> SequenceFit:
    """Trains a model from `make_model` (features [M, D] -> logits [S, Q, M]) on one video a step; the best epoch.

    After every epoch `validate` sees the model in eval mode (larger is better, None = undefined; an equal number does
    not replace the former), and a checkpoint goes into `folder`, which is the fit's own. The same call takes up the
    newest one, and on a CPU ends with the bits of a fit that was never stopped. key: what the fit depends on beside the
    recipe (features, labels, the model's size); checkpoints of another key or recipe are removed, and it starts anew.

    Raises ValueError for no videos or shapes that do not fit together, NonFiniteError with epoch and video when a loss
    or its gradient is not finite, WeightsError when no checkpoint is whole or one is of something else.
    """
    _check(sequences)
    with _drawn_from(recipe.seed, torch.device("cpu")):
        model = make_model()
    fit = _Fit(model, recipe, f"{recipe} {key}")
    fit.resume(folder)
    for epoch in range(len(fit.curve) + 1, recipe.epochs + 1):
        mean = fit.train(sequences, loss, epoch)
        model.eval()
        with torch.no_grad():
            value = validate(model)
        if value is not None and not math.isfinite(value):
            raise NonFiniteError("val number is not finite", "", f"epoch {epoch}, {value}")
        fit.note(epoch, mean, value)
        checkpoint.save(folder, fit.state(), step=epoch, keep=_KEPT)
    return SequenceFit(fit.best["state"], fit.best["epoch"], fit.best["value"], fit.curve)


class _Fit:
    """Model, optimizer, best and curve: what changes with an epoch."""

    def __init__(self, model: nn.Module, recipe: SequenceRecipe, key: str):
        groups = parameter_groups(
            model.named_parameters(),
            pretrained=frozenset(),
            lr=recipe.lr,
            pretrained_lr_scale=1.0,
            weight_decay=recipe.weight_decay,
            rule="adamw",
        )
        self.model, self.optimizer, self.recipe, self.key = model, build_optimizer("adamw", groups), recipe, key
        self.device = next(model.parameters()).device
        self.best: dict[str, Any] = {"state": _copy(model), "epoch": 0, "value": None}
        self.curve: list[dict[str, Any]] = []

    def state(self) -> dict[str, Any]:
        model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        return {"key": self.key, "model": model, "optimizer": optimizer, "best": self.best, "curve": self.curve}

    def resume(self, folder: Path) -> None:
        """Restores the newest checkpoint of our key; removes those of another."""
        while stored := checkpoint.newest(folder):
            if "key" not in stored.state:
                raise WeightsError("not a checkpoint of this kind of training", stored.path, "it bears no key")
            if stored.state["key"] == self.key:
                self.model.load_state_dict(stored.state["model"])
                self.optimizer.load_state_dict(stored.state["optimizer"])
                self.best, self.curve = stored.state["best"], stored.state["curve"]
                return
            # Left there, one of a later epoch would count as newer than ours. Its sum goes with the next save.
            stored.path.unlink()

    def train(self, sequences: Sequence[VideoSequence], loss: SequenceLoss, epoch: int) -> float:
        """One step per video; the mean loss."""
        self.model.train()
        set_lr(self.optimizer, warmup_cosine(epoch - 1, self.recipe.epochs, 0.0))
        order = np.random.default_rng((self.recipe.seed, epoch)).permutation(len(sequences))
        return sum(self._step(sequences[number], loss, epoch) for number in order) / len(sequences)

    def _step(self, sequence: VideoSequence, loss: SequenceLoss, epoch: int) -> float:
        here = VideoSequence(sequence.video, *(tensor.to(self.device) for tensor in sequence[1:]))
        # By name, not by place in the epoch: without another video in front of it, its dropout is the same.
        with _drawn_from(seed_of(self.recipe.seed, epoch, sequence.video, bits=63), self.device):
            value = loss(self.model(here.features), here)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.max_grad_norm))
        number = float(value.detach())
        if not (math.isfinite(number) and math.isfinite(norm)):
            why = f"epoch {epoch}, loss {number:g}, gradient norm {norm:g}"
            raise NonFiniteError("loss or gradient is not finite", sequence.video, why)
        self.optimizer.step()
        return number

    def note(self, epoch: int, loss: float, value: float | None) -> None:
        """Adds an epoch to the curve, and keeps its weights if they are the best so far."""
        self.curve.append({"epoch": epoch, "loss": loss, "val": value})
        # As long as no epoch had a number, the last one stands for the best.
        if self.best["value"] is None or (value is not None and value > self.best["value"]):
            self.best = {"state": _copy(self.model), "epoch": epoch, "value": value}


def _group_loss(logits: Tensor, labels: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """Of one exclusive group: logits [S, G, M], labels and known [G, M], weights [G, 2]."""
    logs = logits.log_softmax(1)
    is_known = known.all(0)  # [M]
    of_true = torch.where(labels, -logs * weights[:, 1:], 0.0).sum(1)  # [S, M]
    return _mean(of_true, is_known & (labels.sum(0) == 1)) + _roughness(logs, is_known.expand_as(known))


def _row_loss(logits: Tensor, labels: Tensor, known: Tensor, weights: Tensor) -> Tensor:
    """Of R rows that stand alone: logits [S, R, M], labels and known [R, M], weights [R, 2]."""
    target = labels.to(logits).expand_as(logits)
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    losses = losses * torch.where(labels, weights[:, 1:], weights[:, :1])
    return _mean(losses, known) + _roughness(functional.logsigmoid(logits), known)


def _roughness(logs: Tensor, counts: Tensor) -> Tensor:
    """0.15 * T-MSE of log-probabilities [S, R, M] over neighbours in time that both count, `counts` [R, M]."""
    change = logs[..., 1:] - logs[..., :-1].detach()
    return _SMOOTH_WEIGHT * _mean(change.square().clamp(max=_SMOOTH_MOST**2), counts[:, 1:] & counts[:, :-1])


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """Mean of values [S, ...] over the stages and over the cells that count [...]; 0 where none does."""
    return torch.where(counts, values, 0.0).sum() / (len(values) * counts.sum().clamp(min=1))


def _check(sequences: Sequence[VideoSequence]) -> None:
    if not sequences:
        raise ValueError("no videos to learn from")
    queries = len(sequences[0].labels)
    for video, features, labels, known in sequences:
        expected = (queries, len(features))
        if features.ndim != 2 or labels.shape != expected or known.shape != expected:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in (features, labels, known))
            raise ValueError(f"{video}: features, labels, known: found {shapes}, expected [M, D], [Q, M], [Q, M]")


def _copy(model: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now, on the CPU; the model's own go on changing."""
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


@contextlib.contextmanager
def _drawn_from(seed: int, device: torch.device) -> Iterator[None]:
    """Random numbers of the body come from `seed`; the generators of everybody else go on as if there was no body."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
