"""The launcher: exit codes, and one line per error."""

import os
import signal
import time

import pytest
import torch

from xclip_module.errors import DataError, DiskError, HangError, MemoryShortage, NonFiniteError, WeightsError
from xclip_module.run.launch import launch


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("broken", "a.mp4"), 3),
        (WeightsError("wrong", "a.pt"), 4),
        (DiskError("full", "a"), 5),
        (OSError(28, "No space left on device", "a.npz"), 5),
        (MemoryShortage("short"), 6),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 6),
        (MemoryError(), 6),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 6),
        (HangError("hung", "a.mp4"), 7),
        (NonFiniteError("nan", "a"), 8),
        (KeyboardInterrupt(), 75),
    ],
    ids=repr,
)
def test_every_mishap_is_one_line_with_its_exit_code(start, tmp_path, error, code):
    def main(config, run):
        raise error

    ended, text = start(main)
    assert ended == code
    assert text.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in text
    assert text.splitlines()[-1] in (tmp_path / "runs" / "x" / "log.txt").read_text()


def test_a_defect_keeps_its_traceback_in_the_run_folder(start, tmp_path):
    def main(config, run):
        return {}["missing"]

    code, text = start(main)
    assert code == 1
    assert "KeyError" in (tmp_path / "runs" / "x" / "traceback-rank0.txt").read_text()
    assert "traceback-rank0.txt" in text.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_with_75_and_says_how_to_go_on(start, number):
    def main(config, run):
        os.kill(os.getpid(), number)
        time.sleep(5)

    code, text = start(main)
    assert code == 75
    assert f"error: stopped by {number.name}" in text
    assert "same command again" in text


def test_a_wrong_key_ends_before_anything_is_written(start, tmp_path):
    code, text = start(lambda config, run: None, "--data.rot=x")
    assert code == 2
    assert text == "error: unknown config key data.rot: did you mean data.root?; try: --help lists every key\n"
    assert not (tmp_path / "runs").exists()


def test_help_lists_every_key_and_runs_nothing(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        launch(lambda config, run: 1 / 0, script=str(tmp_path / "run_test.py"), arguments=["--help"])
    assert not ended.value.code
    text = capsys.readouterr().out
    for name in ("--run.root", "--run.name", "--data.root", "--data.queries", "--model.weights", "--protocol"):
        assert name in text
