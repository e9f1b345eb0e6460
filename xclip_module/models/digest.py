"""A fingerprint of weights."""

import hashlib

import torch
from torch import nn


def weights_digest(*modules: nn.Module) -> str:
    """Hex digest of every parameter and buffer: name, type, shape and bits."""
    total = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()[:32]
