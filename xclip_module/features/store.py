"""The feature store: what was encoded once is never encoded again, and never served stale."""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from xclip_module.interface import FrameFolder
from xclip_module.run import storage

# Part of every key: raised when the meaning of stored arrays changes.
FORMAT = 1

# What the header of a safetensors file calls the types of stored arrays.
_DTYPES = {"U8": np.uint8, "I64": np.int64, "F16": np.float16, "F32": np.float32, "F64": np.float64}

log = logging.getLogger(__name__)


class FeatureStore:
    """A folder of one file per video and key; two runs may read and write it at the same time.

    The key says everything that the arrays depend on: weights, preprocessing, sampling, precision, decoder, and the
    file's identity. Another value anywhere is another file.
    """

    def __init__(self, folder: Path):
        """Makes the folder. Raises DiskError when it cannot be one, before anything is encoded in vain."""
        storage.make_folder(folder)
        self.folder = folder

    def path(self, key: Mapping[str, Any]) -> Path:
        """Where the arrays of this key are, or will be; `video` in the key starts the name."""
        text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
        name = "".join(letter if letter.isalnum() else "_" for letter in str(key.get("video", "")))[-60:]
        return self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.safetensors"

    def load(self, key: Mapping[str, Any], *, mapped: bool = False) -> dict[str, np.ndarray] | None:
        """The stored arrays, or None when there are none or the file is damaged (said in the log).

        mapped: they stay in the file and are read where they are used, once for all processes of a machine. Writing
        into such an array changes a private copy, never the file.
        """
        path = self.path(key)
        try:
            if not path.exists():
                return None
            with safetensors.safe_open(path, framework="numpy") as file:
                names = file.keys()
                arrays = _map(path) if mapped else {name: file.get_tensor(name) for name in names}
                digest = (file.metadata() or {}).get("digest")
        except (OSError, safetensors.SafetensorError) as error:
            log.warning("%s is unreadable (%s): encoded again", path, error)
            return None
        if digest != _digest(arrays):
            log.warning("%s is damaged: encoded again", path)
            return None
        return arrays

    def save(self, key: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Stores arrays atomically, with their key and digest in the file. Raises DiskError."""
        whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        metadata = {"key": json.dumps(dict(key), sort_keys=True), "digest": _digest(whole)}
        storage.write_bytes(self.path(key), save(whole, metadata=metadata))


def identity(source: Path | FrameFolder) -> dict[str, Any]:
    """Path, size and time of change of a video file or of all its extracted frames."""
    if isinstance(source, FrameFolder):
        stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in source.files]
        digest = hashlib.sha256(json.dumps([stats, source.times.tolist()]).encode()).hexdigest()
        return {"path": str(source.folder.resolve()), "frames": len(stats), "digest": digest}
    stat = source.stat()
    return {"path": str(source.resolve()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _map(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a sound file without reading them: after 8 bytes, the length of a JSON header with their places."""
    # Not mode "r": torch warns of every tensor made from an array that cannot be written.
    content = np.asarray(np.memmap(path, np.uint8, mode="c"))
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    entries = json.loads(content[8:start].tobytes())
    entries.pop("__metadata__", None)
    return {
        name: content[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
        .view(_DTYPES[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in entries.items()
    }


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256()
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        total.update(np.asarray(arrays[name], order="C").data)
    return total.hexdigest()
