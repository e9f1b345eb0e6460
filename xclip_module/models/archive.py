"""Tensors out of a TorchScript archive, as OpenAI publishes CLIP, without running any code from it.

The archive is read as what it is: a zip with one pickle that describes modules and one raw file per storage. The
pickle is opened by an unpickler that knows tensors, ordered dictionaries and nothing else.
"""

import collections
import pickle
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

_DTYPES = {
    "HalfStorage": torch.float16,
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "BoolStorage": torch.bool,
}


class _StorageType(NamedTuple):
    dtype: torch.dtype


class _Module:
    """Stands for any scripted class: keeps the attributes, has no behaviour."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.attributes = state


def is_script_archive(path: Path) -> bool:
    """True for a zip that holds TorchScript code (`torch.jit.save`), not a plain state dict (`torch.save`)."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(PurePosixPath(name).parts[1:2] == ("code",) for name in archive.namelist())


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
            return _StorageType(_DTYPES[name])
        allowed = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
            ("torch.jit._pickle", "restore_type_tag"): _keep_value,
            ("torch.jit._pickle", "build_intlist"): list,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which no weights need")
        return allowed[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        kind, storage_type, key, _, count = pid
        if kind != "storage" or not isinstance(storage_type, _StorageType):
            raise pickle.UnpicklingError("a persistent object that is no storage")
        if key not in self._storages:
            info = self._archive.getinfo(f"{self._root}/data/{key}")
            # Stored, never compressed, by torch: so no archive unpacks to more than its own size.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != count * storage_type.dtype.itemsize:
                raise ValueError(f"storage {key} has {info.file_size} bytes for {count} numbers")
            content = bytearray(self._archive.read(info))
            self._storages[key] = torch.frombuffer(content, dtype=storage_type.dtype) if count else torch.empty(0)
        return self._storages[key]


def _rebuild_tensor(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: Any) -> Tensor:
    reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride), default=0) < 0 or (0 not in size and reach >= len(storage)):
        raise ValueError(f"a tensor of size {tuple(size)} that reaches beyond its storage")
    # A copy, as several tensors may be views of one storage.
    return torch.as_strided(storage, size, stride, offset).clone()


def _rebuild_parameter(data: Tensor, *_: Any) -> Tensor:
    return data


def _keep_value(value: Any, _: Any) -> Any:
    return value


def _tensors(module: _Module, prefix: str):
    for name, value in module.attributes.items():
        if isinstance(value, Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.")
