"""Random weights of the public sizes: speed does not depend on what they know."""

import torch

from xclip_module.benchmark.meter import measured
from xclip_module.models.spec import Tower, TwoTowerSpec
from xclip_module.models.two_tower import TwoTower


def vit_b(patch: int, *, header: str = "mean", words: int = 32, frames: int = 12) -> TwoTower:
    """CLIP ViT-B/32 or B/16 as an `xclip`, seeded, in eval mode."""
    spec = TwoTowerSpec(
        vision=Tower(width=768, layers=12, heads=12, hidden=3072),
        text=Tower(width=512, layers=12, heads=8, hidden=2048),
        embed=512,
        image=224,
        patch=patch,
        context=77,
        vocabulary=49408,
        header=header,
        header_layers=4 if header == "transformer" else 0,
        words=words,
        frames=frames,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TwoTower(spec).eval()


def frame_flops(patch: int, image: int = 224, width: int = 768, layers: int = 12) -> float:
    """Floating-point operations of one frame through the vision tower (a multiply-add counts two)."""
    tokens = (image // patch) ** 2 + 1
    block = 24 * tokens * width**2 + 4 * tokens**2 * width
    return layers * block + 2 * (tokens - 1) * 3 * patch**2 * width


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measured floating-point operations per second of a square matrix product on this device."""
    side, turns = (8192, 20) if device.type == "cuda" else (2048, 5)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    with measured(device) as cost:
        for _ in range(turns):
            a @ b
    return turns * 2 * side**3 / cost.seconds
