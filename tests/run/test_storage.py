import errno
import os
import threading
from pathlib import Path

import pytest

from xclip_module.errors import DiskError
from xclip_module.run import storage


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, stop = tmp_path / "x", threading.Event()
    contents = [bytes([number]) * 200_000 for number in range(2)]
    storage.write_bytes(path, contents[0])

    def write():
        for turn in range(200):
            storage.write_bytes(path, contents[turn % 2])
        stop.set()

    thread = threading.Thread(target=write)
    thread.start()
    reads = 0
    while not stop.is_set():
        assert path.read_bytes() in contents
        reads += 1
    thread.join()
    assert reads > 10


@pytest.mark.parametrize("place", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_keeps_the_old_file_and_leaves_no_other(tmp_path, monkeypatch, place, number):
    path = tmp_path / "x"
    storage.write_bytes(path, b"old")

    def fail(*arguments):
        raise OSError(number, "full")

    if place == "write":
        monkeypatch.setattr(storage.os, "fdopen", lambda *a: fail())
    elif place == "fsync":
        monkeypatch.setattr(storage.os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(DiskError, match=r"cannot write: .*x: .*--run.root=FOLDER") as caught:
        storage.write_bytes(path, b"new")
    monkeypatch.undo()
    assert caught.value.exit_code == 5
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]  # noqa: PTH208 (hidden files count)


def test_a_folder_that_is_a_file_is_a_bug_not_a_full_disk(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        storage.write_text(tmp_path / "file" / "x", "")


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()
