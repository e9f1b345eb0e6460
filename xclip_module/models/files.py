"""A state dict out of any weight file, without running anything from it."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from xclip_module.errors import WeightsError
from xclip_module.models.archive import is_script_archive, read_script_archive
from xclip_module.models.damage import weights_errors

# What training scripts wrap a state dict in.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# The training log that MMEngine, under MMAction2, keeps in `message_hub` beside the tensors.
_LOG_CLASSES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
    "numpy.ndarray",
    "numpy.dtype",
    # NumPy 2 moved the first two to the last two.
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
)


class Stored(NamedTuple):
    """What a weight file holds.

    tensors: by name, fp16 and bf16 as float32.
    settings: the configuration text of a file that MMEngine wrote ("" where it left none), None for all others.
    """

    tensors: dict[str, Tensor]
    settings: str | None


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of `read_stored`."""
    return read_stored(path).tensors


def read_stored(path: Path) -> Stored:
    """Tensors by name from a .safetensors file, a TorchScript archive or a torch file (`weights_only=True`).

    fp16 and bf16 tensors become float32; a common `module.` prefix (DistributedDataParallel) is taken off. MMEngine's
    log, which torch would refuse, becomes inert stand-ins.
    Raises WeightsError for anything that is damaged, no state dict, or asks to run code.
    """
    with weights_errors(path):
        content = _read(path)
    settings = _settings(content)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(map(_is_weight, content.items())):
        content_kind = f"found {_shape_of(content)}, expected dense real tensors by name"
        raise WeightsError("not a state dict", path, content_kind, "save model.state_dict()")
    # All of them, or it is a model that has a part of this name.
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return Stored({name: t.float() if t.is_floating_point() else t for name, t in content.items()}, settings)


class _Ignored:
    """Stands for a class or function of MMEngine's log: takes any arguments and state, does nothing."""

    def __init__(self, *arguments: Any):
        """Forgets them."""

    def __setstate__(self, state: Any) -> None:
        """Forgets it."""


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if is_script_archive(path):
        return read_script_archive(path)
    with torch.serialization.safe_globals([(_Ignored, name) for name in _LOG_CLASSES]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            refused = _refused(path)
            if not refused:
                raise
            request = f"it asks for {', '.join(refused)}, which no weights need; nothing in it was run"
            attempt = "torch.save(model.state_dict(), path) in the program that wrote it"
            raise WeightsError("unreadable checkpoint", path, request, attempt) from error


def _refused(path: Path) -> list[str]:
    """What a torch file asks for beyond tensors and plain containers, read off its pickle without running it."""
    if not zipfile.is_zipfile(path):
        return []
    return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))


def _settings(content: Any) -> str | None:
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping) or not ("mmengine_version" in meta or "message_hub" in content):
        return None
    return str(meta.get("cfg", ""))


def _is_weight(item: tuple[Any, Any]) -> bool:
    name, value = item
    is_plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()
    return isinstance(name, str) and is_plain


def _shape_of(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a mapping with keys {sorted(map(str, content))[:5]}"
    return type(content).__name__
