"""A state dict out of any weight file, without running anything from it."""

import contextlib
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from xclip_module.errors import UserError, WeightsError
from xclip_module.models.archive import is_script_archive, read_script_archive

# What training scripts wrap a state dict in.
_WRAPPERS = ("state_dict", "model_state_dict", "model")


@contextlib.contextmanager
def weights_errors(place: object, what: str = "unreadable checkpoint") -> Iterator[None]:
    """Turns whatever a damaged or foreign file makes its readers raise into one WeightsError that names the place.

    Running out of memory and our own errors pass.
    """
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    # Every reader has its own classes, transformers' configs and the tokenizers even plain Exceptions.
    except Exception as error:
        if "can't allocate memory" in str(error):
            raise
        attempt = "download or copy the file again"
        raise WeightsError(what, str(place)[:200], _reason(error), attempt) from error


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file, a TorchScript archive or a torch file (`weights_only=True`).

    fp16 and bf16 tensors become float32; a common `module.` prefix (DistributedDataParallel) is taken off.
    Raises WeightsError for anything that is damaged, no state dict, or asks to run code.
    """
    with weights_errors(path):
        content = _read(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(map(_is_weight, content.items())):
        found = f"found {_shape_of(content)}, expected dense real tensors by name"
        raise WeightsError("not a state dict", path, found, "save model.state_dict()")
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return {name: t.float() if t.is_floating_point() else t for name, t in content.items()}


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if is_script_archive(path):
        return read_script_archive(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _is_weight(item: tuple[Any, Any]) -> bool:
    name, value = item
    is_plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()
    return isinstance(name, str) and is_plain


def _reason(error: Exception) -> str:
    """Why, in our words where torch's own advise to switch the safety off."""
    if isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error):
        return "it holds more than tensors, or is no weight file; nothing in it was run"
    return f"{type(error).__name__} {' '.join(str(error).split())}"[:300].strip()


def _shape_of(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a mapping with keys {sorted(map(str, content))[:5]}"
    return type(content).__name__
