"""What a reproduction needs to be told: machine, versions, commit, batch and clip settings."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "tokenizers",
    "decord",
    "av",
    "numpy",
    "scikit-learn",
    "pandas",
    "safetensors",
    "tqdm",
    "ftfy",
    "matplotlib",
    "jinja2",
    "pillow",
)


def describe(device: torch.device, *, world_size: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Machine, versions, commit and the given settings as nested primitives.

    settings: what the run adds (precision, batch and clip sizes, decoder, weights).
    """
    gpu, cuda = _gpu(device) if device.type == "cuda" else (None, None)
    return {
        "device": device.type,
        "processes": world_size,
        "gpu": gpu,
        "cuda": cuda,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "commit": _commit(),
        "settings": settings,
    }


def as_block(report: dict[str, Any]) -> str:
    """The report as aligned lines, to paste into a paper's appendix or an issue.

    >>> print(as_block({"device": "cpu", "settings": {"clip_seconds": 16.0}, "gpu": None}))
    device                 cpu
    settings.clip_seconds  16.0
    """
    rows = {
        f"{key}.{inner}" if inner else key: value
        for key, part in report.items()
        for inner, value in (part.items() if isinstance(part, dict) else [("", part)])
        if value is not None
    }
    width = max(map(len, rows))
    return "\n".join(f"{key:{width}}  {value}" for key, value in rows.items())


def _gpu(device: torch.device) -> tuple[dict[str, Any], str | None]:
    """Model and memory of a GPU, and the CUDA version that torch was built with."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    return {"model": properties.name, "vram_gib": round(properties.total_memory / 2**30, 1)}, torch.version.cuda


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    # Its import would cost --help half of its time.
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of this code, with a mark when files differ from it; None outside a git checkout."""
    root = Path(__file__).parents[2]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (" (changed)" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
