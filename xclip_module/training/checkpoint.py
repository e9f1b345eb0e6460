"""Checkpoints that are whole, verified, and go back to the one before when they are not.

A checkpoint is `step-00001200.pt` (torch.save of primitives and tensors, loads with `weights_only=True`) and its
SHA-256 in `step-00001200.pt.sha256`: torch loads a file with one flipped bit without a word in 94 of 100 cases.
"""

import hashlib
import io
import logging
import pickle
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

from xclip_module.errors import WeightsError
from xclip_module.run import storage

# What torch.load raises for files that are cut, empty, or no checkpoint at all.
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError)

log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """A verified checkpoint and where it lies."""

    path: Path
    state: dict[str, Any]


def save(folder: Path, state: dict[str, Any], *, step: int, keep: int) -> Path:
    """Writes the checkpoint of `step` and then removes all but the newest `keep`; returns its path.

    Killed at any moment, the former ones are still there. Raises DiskError when the disk is full; they stay then, too.
    """
    file = io.BytesIO()
    torch.save(state, file)
    content = file.getbuffer()
    path = folder / f"step-{step:08d}.pt"
    # The sum first, beside that of a file which this one replaces: killed in between, what lies there still verifies.
    former = _sums(path)[:1] if path.exists() else []
    sums = [hashlib.sha256(content).hexdigest(), *former]
    storage.write_text(_sum_of(path), "".join(f"{digest}  {path.name}\n" for digest in sums))
    storage.write_bytes(path, content)
    for old in _all(folder)[keep:]:
        old.unlink()
    for lonely in folder.glob("step-*.pt.sha256"):
        if not lonely.with_suffix("").exists():
            lonely.unlink()
    return path


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies, None where there is none at all; what is passed over stands in the log.

    Raises WeightsError when there are checkpoints and none of them is whole: to begin anew must be the user's choice.
    """
    paths = _all(folder)
    for path in paths:
        try:
            return Checkpoint(path, read(path))
        except WeightsError as error:
            log.warning("passed over: %s", error)
    if paths:
        raise WeightsError("no checkpoint is whole", folder, f"found {len(paths)}, all damaged", f"rm -r {folder}")
    return None


def read(path: Path) -> dict[str, Any]:
    """The state of a checkpoint. Raises WeightsError when its SHA-256 differs or it has none."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError("unreadable checkpoint", path, error.strerror or str(error)) from error
    digest, wanted = hashlib.sha256(content).hexdigest(), _sums(path)
    if digest not in wanted:
        expected = f"{wanted[0][:12]}…" if wanted else f"one in {_sum_of(path).name}"
        raise WeightsError("damaged checkpoint", path, f"SHA-256 {digest[:12]}…, expected {expected}")
    try:
        state = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except _UNREADABLE as error:
        raise WeightsError("unreadable checkpoint", path, type(error).__name__) from error
    if not isinstance(state, dict):
        raise WeightsError("unreadable checkpoint", path, f"it holds a {type(state).__name__}")
    return state


def _all(folder: Path) -> list[Path]:
    """Checkpoints by name, newest first."""
    # Whatever else lies there, such as a copy of the user's, is not ours to read or remove.
    paths = [path for path in folder.glob("step-*.pt") if re.fullmatch(r"step-\d{8,}\.pt", path.name)]
    return sorted(paths, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)


def _sums(path: Path) -> list[str]:
    try:
        return [line.split()[0] for line in _sum_of(path).read_text(encoding="utf-8").splitlines() if line.split()]
    except (OSError, ValueError):
        return []


def _sum_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
