"""Files that are whole or absent: written beside their place, synced, then renamed."""

import contextlib
import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xclip_module.errors import DiskError

_DISK_ERRNOS = {
    errno.ENOSPC: "no space left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}


@contextlib.contextmanager
def disk_errors(path: Path, *, is_users_choice: bool = False) -> Iterator[None]:
    """Turns a full, read-only or forbidden disk into one `DiskError` that names the path; other errors pass.

    is_users_choice: the user named this place, so that whatever the system says against it is for the user to read.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRNOS and not is_users_choice:
            raise
        if error.errno in _DISK_ERRNOS:
            reason, attempt = _DISK_ERRNOS[error.errno], "free space, or name another place with --run.root=FOLDER"
        else:
            reason = error.strerror or str(error)
            attempt = "another place for --run.root, --run.name, --data.features or --finetune.cache"
        raise DiskError("cannot write", path, reason, attempt) from error


def make_folder(path: Path) -> None:
    """Makes a folder that the user named, with its parents. Raises DiskError when it cannot be one."""
    with disk_errors(path, is_users_choice=True):
        path.mkdir(parents=True, exist_ok=True)


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Writes `content` to `path` so that a reader, or a kill at any moment, sees the old file or the new one.

    Raises DiskError when the disk is full, over quota, read-only or forbidden; no temporary file is left behind.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder: a rename is atomic within one file system only.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                # Before the rename, or a power cut could leave the new name on an empty file.
                os.fsync(file.fileno())
            # mkstemp makes files that only their owner may read.
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def remove_leftovers(folder: Path) -> None:
    """Removes what writes into `folder` that were killed have left; nobody else may write there meanwhile."""
    for path in folder.rglob(".*"):
        # The eight characters that mkstemp draws.
        if re.fullmatch(r"\..+\.[a-z0-9_]{8}", path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """Writes UTF-8 text atomically; see `write_bytes`."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON atomically. NaN is refused (ValueError): JSON has no word for it, use None."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
