"""A small temporal convolution network over the window features of a whole video.

D width of a feature, C channels, Q queries (rows), M windows of the video in time order, S stages.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

# Both as in MS-TCN.
_KERNEL = 3
_DROPOUT = 0.5


class TemporalSpec(NamedTuple):
    """A temporal head in numbers, primitives only: `TemporalHead(**spec._asdict())` makes it again, after JSON too.

    exclusive: groups of rows of which one holds at a time (phases); rows in none of them (tools) stand alone.
    """

    width: int
    queries: int
    channels: int
    layers: int
    stages: int
    is_causal: bool
    exclusive: tuple[tuple[int, ...], ...]


class TemporalHead(nn.Module):
    """Stages of dilated residual convolutions; each stage after the first refines the probabilities of the one before.

    Source: MS-TCN (Farha & Gall, CVPR 2019) section 3 and yabufarha/ms-tcn model.py; two stages, and causal
    convolutions (`is_causal`), as in TeCNO (Czempiel et al., MICCAI 2020) and tobiascz/TeCNO models/mstcn.py.
    Differs: one video at a time, so nothing is padded to a batch and there is no mask; a softmax over the rows of each
    exclusive group and a sigmoid of every other row where the sources have one softmax over all classes; a causal layer
    pads on the left only, where TeCNO's pads on both sides and cuts (the same numbers).
    """

    def __init__(
        self,
        width: int,
        queries: int,
        *,
        exclusive: Sequence[Sequence[int]],
        channels: int = 64,
        layers: int = 8,
        stages: int = 2,
        is_causal: bool = False,
    ):
        """Random weights.

        layers: dilations 1, 2, 4 … of a stage, which sees 2 ** layers - 1 windows to either side, causal twice as many
        back; with 0 each window is judged alone.

        Raises ValueError for an exclusive group of fewer than two rows, of unknown rows, or that shares one.
        """
        super().__init__()
        groups = tuple(tuple(int(row) for row in rows) for rows in exclusive)
        _check_groups(groups, queries)
        self.spec = TemporalSpec(width, queries, channels, layers, stages, is_causal, groups)
        widths = [width, *[queries] * (stages - 1)]
        self.stages = nn.ModuleList(_stage(size, self.spec) for size in widths)

    def forward(self, features: Tensor) -> Tensor:
        """Standardised features [M, D] of one video, M >= 1 -> logits [S, Q, M] of every stage; the last one counts.

        Causal: the logits at m depend on features[: m + 1] alone.
        """
        if features.ndim != 2 or features.shape[1] != self.spec.width or not len(features):
            expected = f"[M, {self.spec.width}] with M >= 1"
            raise ValueError(f"features of a video: found {list(features.shape)}, expected {expected}")
        states = features.T[None]  # [1, D, M]
        outputs: list[Tensor] = []
        for number, stage in enumerate(self.stages):
            outputs.append(stage(self.probabilities(outputs[-1])[None] if number else states)[0])  # [Q, M]
        return torch.stack(outputs)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of logits [Q, M] of one stage: softmax over the rows of an exclusive group, sigmoid of the other rows."""
        probs = logits.sigmoid()
        for group in self.spec.exclusive:
            rows = torch.tensor(group, device=logits.device)
            probs = probs.index_copy(0, rows, logits[rows].softmax(0))
        return probs


class _DilatedLayer(nn.Module):
    """x + dropout(1x1(relu(dilated(x)))): [1, C, M] -> [1, C, M], for any M >= 1."""

    def __init__(self, channels: int, dilation: int, is_causal: bool):
        super().__init__()
        reach = (_KERNEL - 1) * dilation
        self.padding = (reach, 0) if is_causal else (reach // 2, reach // 2)
        self.dilated = nn.Conv1d(channels, channels, _KERNEL, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, states: Tensor) -> Tensor:
        seen = self.dilated(functional.pad(states, self.padding)).relu()
        return states + self.dropout(self.mix(seen))


def _stage(width: int, spec: TemporalSpec) -> nn.Sequential:
    """[1, width, M] -> [1, Q, M]."""
    layers = [_DilatedLayer(spec.channels, 2**number, spec.is_causal) for number in range(spec.layers)]
    return nn.Sequential(nn.Conv1d(width, spec.channels, 1), *layers, nn.Conv1d(spec.channels, spec.queries, 1))


def _check_groups(groups: Sequence[Sequence[int]], queries: int) -> None:
    rows = [row for group in groups for row in group]
    is_known = all(0 <= row < queries for row in rows)
    # Alone in its group a row's softmax is 1 whatever the video shows.
    if not is_known or len(set(rows)) < len(rows) or any(len(group) < 2 for group in groups):
        expected = f"groups of two or more of the rows 0 to {queries - 1}, no row twice"
        raise ValueError(f"exclusive: found {groups}, expected {expected}; leave out a row that stands alone")
