"""A state dict out of any weight file, without running anything from it, and a fingerprint of weights.

A TorchScript archive, as OpenAI publishes CLIP, is read as what it is: a zip with one pickle that describes modules and
one raw file per storage. The pickle is opened by an unpickler that knows tensors, ordered dictionaries, nothing else.
"""

import collections
import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from xclip_module.errors import WeightsError
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
# By the names that torch gives the storages of an archive.
_DTYPES = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class Stored(NamedTuple):
    """What a weight file holds.

    tensors: by name, fp16 and bf16 as float32.
    settings: the configuration text of a file that MMEngine wrote ("" where it left none), None for all others.
    """

    tensors: dict[str, Tensor]
    settings: str | None


def read_stored(path: Path) -> Stored:
    """Tensors by name from a .safetensors file, a TorchScript archive or a torch file (`weights_only=True`).

    A common `module.` prefix (DistributedDataParallel) is taken off; MMEngine's log, which torch would refuse, becomes
    inert stand-ins.
    Raises WeightsError for anything that is damaged, no state dict, or asks to run code.
    """
    with weights_errors(path):
        content = _read(path)
    settings = _settings(content)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(map(_is_weight, content.items())):
        is_mapping = isinstance(content, Mapping)
        kind = f"a mapping with keys {sorted(map(str, content))[:5]}" if is_mapping else type(content).__name__
        gap = f"found {kind}, expected dense real tensors by name"
        raise WeightsError("not a state dict", path, gap, "save model.state_dict()")
    # All of them, or it is a model that has a part of this name.
    if all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return Stored({name: t.float() if t.is_floating_point() else t for name, t in content.items()}, settings)


def read_script_archive(path: Path) -> dict[str, Tensor]:
    """Every tensor of the archived module by its dotted name.

    Raises pickle.UnpicklingError for a pickle that asks for anything but tensors, ValueError for tensors that reach
    beyond their storage, zipfile.BadZipFile for damage (each storage's CRC-32 is checked).
    """
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if PurePosixPath(name).parts[1:] == ("data.pkl",)]
        if len(pickles) != 1:
            raise ValueError("expected one data.pkl in the archive")
        with archive.open(pickles[0]) as file:
            module = _Unpickler(file, archive, PurePosixPath(pickles[0]).parts[0]).load()
    return dict(_tensors(module, ""))


def weights_digest(*modules: nn.Module) -> str:
    """Hex digest of every parameter and buffer: name, type, shape and bits."""
    total = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return total.hexdigest()[:32]


class _Ignored:
    """Stands for a class or function of MMEngine's log: takes any arguments and state, does nothing."""

    def __init__(self, *arguments: Any):
        """Forgets them."""

    def __setstate__(self, state: Any) -> None:
        """Forgets it."""


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if _is_script_archive(path):
        return read_script_archive(path)
    with torch.serialization.safe_globals([(_Ignored, name) for name in _LOG_CLASSES]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # What it asks for beyond tensors and plain containers, read off its pickle without running it.
            refused = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipfile.is_zipfile(path) else []
            if not refused:
                raise
            request = f"it asks for {', '.join(sorted(refused))}, which no weights need; nothing in it was run"
            attempt = "torch.save(model.state_dict(), path) in the program that wrote it"
            raise WeightsError("unreadable checkpoint", path, request, attempt) from error


def _settings(content: Any) -> str | None:
    meta = content.get("meta") if isinstance(content, Mapping) else None
    if not isinstance(meta, Mapping) or not ("mmengine_version" in meta or "message_hub" in content):
        return None
    return str(meta.get("cfg", ""))


def _is_weight(item: tuple[Any, Any]) -> bool:
    name, value = item
    is_plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_complex()
    return isinstance(name, str) and is_plain


def _is_script_archive(path: Path) -> bool:
    """True for a zip that holds TorchScript code (`torch.jit.save`), not a plain state dict (`torch.save`)."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(PurePosixPath(name).parts[1:2] == ("code",) for name in archive.namelist())


class _Module:
    """Stands for any scripted class: keeps the attributes, has no behaviour."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str):
        super().__init__(file, encoding="utf-8")
        self._archive = archive
        self._root = root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        # Where torch.jit files the classes that it has compiled.
        if module.startswith("__torch__"):
            return _Module
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        allowed = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _keep_first,
            ("torch.jit._pickle", "restore_type_tag"): _keep_first,
            ("torch.jit._pickle", "build_intlist"): list,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which no weights need")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("a persistent object that is no storage")
        if key not in self._storages:
            info = self._archive.getinfo(f"{self._root}/data/{key}")
            # Stored, never compressed, by torch: so no archive unpacks to more than its own size.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != count * dtype.itemsize:
                raise ValueError(f"storage {key} has {info.file_size} bytes for {count} numbers")
            content = bytearray(self._archive.read(info))
            self._storages[key] = torch.frombuffer(content, dtype=dtype) if count else torch.empty(0)
        return self._storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride), default=0) < 0 or (0 not in size and reach >= len(storage)):
        raise ValueError(f"a tensor of size {tuple(size)} that reaches beyond its storage")
    # A copy, as several tensors may be views of one storage.
    return torch.as_strided(storage, size, stride, offset).clone()


def _keep_first(value: Any, *_: Any) -> Any:
    return value


def _tensors(module: _Module, prefix: str):
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
