"""Checkpoints: whole or refused, and the newest whole one is found, whatever happened to the others."""

import random
import resource
import signal

import pytest
import torch

from xclip_module.errors import DiskError, WeightsError
from xclip_module.run import storage
from xclip_module.training import checkpoint


def state(step):
    torch.manual_seed(step)
    return {"model": {"w": torch.randn(30, 10)}, "progress": {"step": step, "best": float("-inf")}}


@pytest.fixture
def folder(tmp_path):
    for step in (5, 10):
        checkpoint.save(tmp_path, state(step), step=step, keep=2)
    return tmp_path


def is_step(found, step):
    same = torch.equal(found.state["model"]["w"], state(step)["model"]["w"])
    return same and found.state["progress"] == state(step)["progress"]


def test_what_was_saved_is_read_back_with_weights_only(folder):
    found = checkpoint.newest(folder)
    assert is_step(found, 10)
    plain = torch.load(found.path, weights_only=True)
    assert torch.equal(plain["model"]["w"], found.state["model"]["w"])


def test_an_empty_folder_has_none(tmp_path):
    assert checkpoint.newest(tmp_path) is None


def test_only_the_newest_are_kept_by_number_not_by_name(folder):
    checkpoint.save(folder, state(100_000_000), step=100_000_000, keep=2)
    assert sorted(path.name for path in folder.glob("*.pt")) == ["step-00000010.pt", "step-100000000.pt"]
    assert len(list(folder.glob("*.sha256"))) == 2
    assert is_step(checkpoint.newest(folder), 100_000_000)


def test_every_flipped_bit_and_every_cut_is_refused_and_the_one_before_is_used(folder, caplog):
    path = folder / "step-00000010.pt"
    whole = path.read_bytes()
    draw = random.Random(0)
    damaged = [whole[: draw.randrange(len(whole))] for _ in range(100)]
    for _ in range(300):
        bit = draw.randrange(8 * len(whole))
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        assert is_step(checkpoint.newest(folder), 5)
    assert caplog.text.count("passed over") == 400


@pytest.mark.parametrize("damage", ["missing", "empty", "swapped"])
def test_a_checkpoint_without_its_own_sum_is_never_used(folder, damage):
    sums = [folder / f"step-{step:08d}.pt.sha256" for step in (5, 10)]
    if damage == "missing":
        sums[1].unlink()
    else:
        sums[1].write_text("" if damage == "empty" else sums[0].read_text())
    assert is_step(checkpoint.newest(folder), 5)


def test_where_none_is_whole_the_run_does_not_begin_anew_in_silence(folder):
    for path in folder.glob("*.pt"):
        path.write_bytes(b"")
    with pytest.raises(WeightsError, match="no checkpoint is whole.*found 2"):
        checkpoint.newest(folder)


def test_a_foreign_file_with_a_right_sum_is_one_error(folder):
    checkpoint.save(folder, {"evil": 1}, step=11, keep=9)
    path = folder / "step-00000011.pt"
    content = b"<html>not found</html>"
    path.write_bytes(content)
    checkpoint._sum_of(path).write_text(checkpoint.hashlib.sha256(content).hexdigest())
    with pytest.raises(WeightsError, match="unreadable checkpoint"):
        checkpoint.read(path)
    assert is_step(checkpoint.newest(folder), 10)


@pytest.mark.parametrize("moment", ["before the sum", "between sum and file", "before the old one goes"])
def test_killed_in_the_middle_of_a_save_the_former_ones_verify(folder, moment, monkeypatch):
    target = {"before the sum": "write_text", "between sum and file": "write_bytes"}.get(moment)

    def kill(*_):
        raise KeyboardInterrupt

    if target:
        monkeypatch.setattr(storage, target, kill)
    else:
        monkeypatch.setattr(checkpoint, "_all", kill)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(folder, state(15), step=15, keep=2)
    monkeypatch.undo()
    assert is_step(checkpoint.newest(folder), 10 if target else 15)


def test_replacing_a_step_leaves_the_former_file_valid_until_the_new_one_is_there(folder, monkeypatch):
    def kill(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "write_bytes", lambda path, content: path.suffix == ".pt" and kill())
    original = storage.write_text
    monkeypatch.setattr(storage, "write_text", lambda path, text: path.write_text(text))
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(folder, {**state(10), "validated": True}, step=10, keep=2)
    monkeypatch.setattr(storage, "write_text", original)
    assert is_step(checkpoint.newest(folder), 10)


def test_a_full_disk_costs_neither_the_former_checkpoint_nor_leaves_rubbish(folder):
    size = (folder / "step-00000010.pt").stat().st_size
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for budget in range(90, size, size // 20):
            resource.setrlimit(resource.RLIMIT_FSIZE, (budget, before[1]))
            with pytest.raises(DiskError, match="step-00000015"):
                checkpoint.save(folder, state(15), step=15, keep=2)
            assert is_step(checkpoint.newest(folder), 10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(folder.glob(".*"))
