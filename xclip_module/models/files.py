"""A state dict out of any weight file, without running anything from it."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from xclip_module.errors import WeightsError
from xclip_module.models.archive import is_script_archive, read_script_archive

_UNREADABLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    SafetensorError,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
)
# What training scripts wrap a state dict in.
_WRAPPERS = ("state_dict", "model_state_dict", "model")


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file, a TorchScript archive or a torch file (`weights_only=True`).

    fp16 and bf16 tensors become float32; a common `module.` prefix (DistributedDataParallel) is taken off.
    Raises WeightsError for anything that is damaged, no state dict, or asks to run code.
    """
    try:
        content = _read(path)
    except _UNREADABLE as error:
        raise WeightsError("unreadable checkpoint", path, _reason(error), "download or copy the file again") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(
            "not a state dict", path, f"found {_shape_of(content)}, expected tensors by name", "save model.state_dict()"
        )
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return {name: t.float() if t.is_floating_point() else t for name, t in content.items()}


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if is_script_archive(path):
        return read_script_archive(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    """Why, in our words where torch's own advise to switch the safety off."""
    if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error):
        return "it holds more than tensors, or is no weight file; nothing in it was run"
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__} {first}"[:200].strip()


def _shape_of(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a mapping with keys {sorted(map(str, content))[:5]}"
    return type(content).__name__
