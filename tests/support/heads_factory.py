"""Heads and models for tests of what sees features."""

import numpy as np
import torch

from support.models_factory import tiny_ms_xclip, tiny_two_tower
from xclip_module.interface import Picture, Query
from xclip_module.models.head import Head
from xclip_module.models.ms_xclip import MicrosoftXClip
from xclip_module.models.temporal_head import TemporalHead

CPU = torch.device("cpu")
QUERIES = (
    Query("cutting", "the gallbladder is cut; or torn", "phase"),
    Query("hook", "a hook is in use", "tool"),
    Query("packing", "the bag is closed", "phase"),
    Query("cleaning", "the bed is rinsed", "phase"),
    Query("smoke; much of it;", "smoke", "free"),
)
KNOWN = torch.tensor([True, True, True, True, True])


def make_head(*, is_temporal=False, known=KNOWN, width=6, source=None):
    torch.manual_seed(0)
    network = TemporalHead(width, 5, exclusive=[(0, 2, 3)], channels=4, layers=2).eval() if is_temporal else None
    return Head(
        queries=QUERIES,
        mean=torch.randn(width),
        inverse=torch.rand(width),
        weight=torch.randn(5, width),
        bias=torch.randn(5),
        known=known,
        temporal=network,
        source=source or {"features": "window", "picture": [32, [0.1, 0.2, 0.3], [1.0, 1.0, 1.0]]},
        made={"protocol": "linear probe of é", "flags": "the defaults", "numbers": [1e-300, 0.1]},
    )


MODELS = {
    "mean": tiny_two_tower,
    "transformer": lambda: tiny_two_tower(header="transformer", header_layers=1),
    "ms-xclip": lambda: MicrosoftXClip(tiny_ms_xclip(), Picture(32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))).eval(),
}


def grid(windows, frames=4):
    return np.arange(windows)[:, None] + np.arange(frames)
