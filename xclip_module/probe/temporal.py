"""The temporal network of a probe, from config to trained weights.

N windows, D width, Q queries, M windows of a video.
"""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xclip_module.config import ProbeConfig
from xclip_module.interface import Query
from xclip_module.models.head import log_odds
from xclip_module.models.temporal_head import TemporalHead
from xclip_module.probe.fit import Fitted, mean_over_pairs
from xclip_module.probe.windows import Windows, digest_of, digest_of_tensors, rows_of, stacked
from xclip_module.run.folder import Run
from xclip_module.training.sequences import SequenceFit, SequenceRecipe, VideoSequence, fit_sequences, sequence_loss

_CHECKPOINTS = "temporal"

log = logging.getLogger(__name__)


def fit_temporal(
    section: ProbeConfig,
    queries: Sequence[Query],
    fitted: Fitted,
    *,
    train: Sequence[Windows],
    val: Sequence[Windows],
    seed: int,
    run: Run,
) -> tuple[TemporalHead | None, dict[str, Any] | None]:
    """The network of the best epoch and what the report says of it; None where none is asked for, or can learn.

    It learns from the training videos, whatever `probe.refit` says: epochs are chosen on val.
    """
    if section.temporal == "none" or not bool(fitted.known.any()):
        return None, None
    is_causal = section.temporal == "causal-tcn"
    rows = [row for row in rows_of(queries, "phase") if fitted.known[row]]
    groups = (tuple(rows),) if rows else ()
    width = len(fitted.scale.mean)

    def make_model() -> TemporalHead:
        return TemporalHead(width, len(queries), exclusive=groups, is_causal=is_causal).to(run.world.device)

    def validate(model: nn.Module) -> float | None:
        curves = [_curves(model, video, queries, fitted) for video in val]
        return mean_over_pairs(curves, val, range(len(queries)), section.monitor)

    start = time.monotonic()
    weights = class_weights(train, rows, is_balanced=section.balance)
    inputs = digest_of_tensors(fitted.scale.mean, fitted.scale.inverse, fitted.known)
    key = json.dumps([digest_of(train), digest_of(val), inputs, section.monitor, section.balance, groups, is_causal])
    trained = fit_sequences(
        make_model,
        [_sequence(video, fitted) for video in train],
        loss=lambda logits, sequence: sequence_loss(logits, sequence, weights=weights, exclusive=groups),
        validate=validate,
        recipe=SequenceRecipe(epochs=section.temporal_epochs, seed=seed),
        folder=run.folder / _CHECKPOINTS,
        key=hashlib.sha256(key.encode()).hexdigest()[:24],
    )
    network = make_model()
    network.load_state_dict(trained.state)
    log.info("temporal network: best %s on val in epoch %d", section.monitor, trained.best_epoch)
    return network.eval(), _facts(network, section.temporal_epochs, trained, time.monotonic() - start)


def _facts(network: TemporalHead, epochs: int, trained: SequenceFit, seconds: float) -> dict[str, Any]:
    spec = network.spec
    kind = "causal: no window sees a later one" if spec.is_causal else "offline: every window sees the whole video"
    size = f"{spec.stages} stages of {spec.layers} layers, {spec.channels} wide"
    return {
        "what": f"temporal convolutions (TCN), {kind}, {size}",
        "is_causal": spec.is_causal,
        "parameters": sum(p.numel() for p in network.parameters()),
        "epochs": epochs,
        "best_epoch": trained.best_epoch,
        "best": trained.best,
        "seconds": round(seconds, 1),
        "curve": trained.curve,
    }


def class_weights(train: Sequence[Windows], phases: Sequence[int], *, is_balanced: bool) -> Tensor:
    """[Q, 2]: what a window counts in which the query does not hold and in which it does, mean 1 over the windows."""
    _, labels, known = stacked(train)
    held, counted = (labels & known).sum(0).double(), known.sum(0).double()
    weights = torch.ones(len(held), 2, dtype=torch.double, device=held.device)
    if is_balanced:
        weights = torch.stack([counted / 2 / (counted - held).clamp(min=1), counted / 2 / held.clamp(min=1)], dim=1)
        rows = list(phases)
        weights[rows, 1] = held[rows].sum() / max(1, len(rows)) / held[rows].clamp(min=1)
    return weights.float().cpu()


def _sequence(video: Windows, fitted: Fitted) -> VideoSequence:
    """A query that nothing can be learned of counts nowhere."""
    inputs = (video.features - fitted.scale.mean) * fitted.scale.inverse
    return VideoSequence(video.video, inputs, video.labels.T, (video.known & fitted.known).T)


@torch.no_grad()
def _curves(model: nn.Module, video: Windows, queries: Sequence[Query], fitted: Fitted) -> Tensor:
    inputs = (video.features - fitted.scale.mean) * fitted.scale.inverse
    return log_odds(model(inputs)[-1], [query.kind for query in queries], fitted.known)
