"""Retrieval: all pairs of 1000 x 1000, and 10,000 x 10,000 in two stages, beside the released expressions.

Q texts, C videos, W words, F frames, D width.
"""

import os

import numpy as np
import torch
from torch import Tensor

from xclip_module.benchmark.meter import Cost, apart, measured, table
from xclip_module.benchmark.similarity import FRAMES, WIDTH, WORDS, released, with_header
from xclip_module.evaluation.retrieval import retrieval_metrics
from xclip_module.evaluation.retrieval_scoring import facts_line, score_matrix, two_stage
from xclip_module.interface import Embeddings
from xclip_module.models.similarity import normalise
from xclip_module.models.two_tower import TwoTower
from xclip_module.run.distributed import World

KEEP = 100
# Texts and videos that the released evaluation is measured on with its header: one block of texts.
_STRIP = (40, 1000)
# Of a feature: what all share, as CLIP's features do, and what a video shares with its text; the rest is noise of 1.
_COMMON, _SHARED = 1.0, 0.3
# Videos that look alike.
_CLUSTER = 20

_THEIRS, _OURS = "released, head alone", "ours, all pairs"
_WHOLE, _STAGES = "released, as it evaluates", f"ours, cosine, then best {KEEP}"


def run(device: torch.device, *, small: int = 1000, large: int = 10_000) -> list[str]:
    """Seconds and peak memory above the features of both sizes, and what the candidates hold."""
    # Threads that spin while they wait take a shared core from each other: measured 3 to 10 times slower, either way.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    strip, _ = apart(_released, _STRIP, True, device)
    theirs, expected = apart(_released, (small, small), False, device)
    ours, scores = apart(_all_pairs, small, device)
    stages, notes = apart(_in_two_stages, large, device)
    scale, block = (large / small) ** 2, large**2 / (_STRIP[0] * _STRIP[1])
    rows = {_WHOLE: strip.times(block), _THEIRS: theirs.times(scale), _OURS: ours.times(scale), _STAGES: stages}
    return [
        f"retrieval: {WORDS} words, {FRAMES} frames, D {WIDTH}, on {device}, {torch.get_num_threads()} threads",
        f"{small} x {small}, all pairs:",
        *table({_THEIRS: theirs, _OURS: ours}, against=_THEIRS),
        f"largest difference {np.abs(expected - scores).max():.1e} of scores up to {np.abs(scores).max():.0f}",
        f"{large} x {large}; only the last row was run whole, its recall included. The others are scaled in time from",
        f"{_STRIP[0]} x {_STRIP[1]} (with header) and {small} x {small} (head alone), and show their memory, without",
        f"the {4 * large**2 / 1e6:.0f} MB of the whole matrix:",
        *table(rows, against=_WHOLE),
        *notes,
        "the features are made up, in clusters: a trained model has another recall and R@1",
    ]


@torch.inference_mode()
def _released(sizes: tuple[int, int], has_header: bool, device: torch.device) -> tuple[Cost, np.ndarray]:
    model = _model(device)
    sides = zip(features(max(sizes)), sizes, strict=True)
    text, video = (Embeddings(*(x[:size].to(device) for x in side)) for side, size in sides)
    with measured(device) as cost:
        scores = released(model, text, video, has_header=has_header).cpu().numpy()
    return cost, scores


@torch.inference_mode()
def _all_pairs(count: int, device: torch.device) -> tuple[Cost, np.ndarray]:
    model, (text, video) = _model(device), features(count)
    with measured(device) as cost:
        scores = score_matrix(text, video, model.similarity, world=World(0, 1, device))
    return cost, scores


@torch.inference_mode()
def _in_two_stages(count: int, device: torch.device) -> tuple[Cost, list[str]]:
    model, (text, video) = _model(device), features(count)
    with measured(device) as cost:
        matrix, facts = two_stage(text, video, model.similarity, keep=KEEP, world=World(0, 1, device))
    values = retrieval_metrics(matrix)
    return cost, [facts_line(facts), f"R@1 t2v {values['t2v/R@1']:.1%}, v2t {values['v2t/R@1']:.1%}"]


def _model(device: torch.device) -> TwoTower:
    return with_header(device, torch.Generator().manual_seed(1))


def features(count: int) -> tuple[Embeddings, Embeddings]:
    """Texts [Q, W, D] and videos [C, F, D]: text n and video n share a direction, half of it with their cluster."""
    generator = torch.Generator().manual_seed(0)
    clusters = torch.randn(-(-count // _CLUSTER), WIDTH, generator=generator)
    own = torch.randn(count, WIDTH, generator=generator)
    shared = _COMMON + _SHARED * (clusters.repeat_interleave(_CLUSTER, 0)[:count] + own) / 2**0.5  # [C, D]

    def drawn(slots: int) -> Tensor:
        return torch.randn(count, slots, WIDTH, generator=generator).add_(shared[:, None])

    words, frames = drawn(WORDS), drawn(FRAMES)
    text = Embeddings(drawn(1)[:, 0], words, torch.ones(count, WORDS, dtype=torch.bool))
    return text, Embeddings(normalise(frames).mean(1), frames, torch.ones(count, FRAMES, dtype=torch.bool))
