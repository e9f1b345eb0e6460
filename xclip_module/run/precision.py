"""In which precision the towers compute; heads are always float32."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xclip_module.errors import ConfigError

if TYPE_CHECKING:
    import torch

# Environment variable: what "auto" means on a CPU. Machines of a cluster may differ in their units.
ON_CPU = "XCLIP_CPU_PRECISION"
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def choose(precision: str, device: torch.device) -> str:
    """The name that "auto" stands for on this device: fp16 on CUDA, bf16 on a CPU with bf16 units, else fp32.

    On a CPU the environment variable XCLIP_CPU_PRECISION, where it is set, says it instead.
    Raises ConfigError for fp16 on a CPU, which computes it many times slower than fp32, and for an unknown value there.
    """
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("run.precision=fp16 needs a GPU", why="found a CPU", attempt="--run.precision=auto")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "fp16"
    pinned = os.environ.get(ON_CPU, "")
    if pinned not in ("", "fp32", "bf16"):
        raise ConfigError(f"{ON_CPU}={pinned}", why="expected fp32 or bf16", attempt=f"unset {ON_CPU}")
    return pinned or ("bf16" if _has_bf16_units() else "fp32")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The autocast context of a chosen precision."""
    import torch

    return torch.autocast(device.type, dtype=getattr(torch, _DTYPES[precision]), enabled=precision != "fp32")


def _has_bf16_units() -> bool:
    import torch

    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_tile") or capabilities.get("avx512_bf16"))
