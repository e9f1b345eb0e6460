"""The launcher: exit codes, one line per error, run folders and their lock."""

import contextlib
import json
import logging
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch

from xclip_module.config import Config, RunConfig
from xclip_module.errors import (
    ConfigError,
    DataError,
    DiskError,
    HangError,
    MemoryShortage,
    NonFiniteError,
    WeightsError,
)
from xclip_module.run import distributed, environment, precision
from xclip_module.run import folder as run_folder
from xclip_module.run.launch import launch
from xclip_module.run.progress import Progress


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

    found, text = start(main)
    assert found == code
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


def test_the_run_folder_tells_what_was_run(start, tmp_path):
    def main(config, run):
        block = run.describe_environment({"clip_seconds": 16.0})
        assert "settings.clip_seconds" in block
        run.record(split="val", AUROC=0.5)
        run.record(split="test", AUROC=0.6)

    assert start(main, "--data.crop=pad")[0] == 0
    folder = tmp_path / "runs" / "x"
    assert json.loads((folder / "config.json").read_text())["data"]["crop"] == "pad"
    report = json.loads((folder / "environment.json").read_text())
    assert {"gpu", "cuda", "packages", "commit", "settings", "cores", "memory_gib"} <= set(report)
    assert report["packages"]["torch"] == torch.__version__.split("+")[0] or "+" in report["packages"]["torch"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["AUROC"] for row in rows] == [0.5, 0.6]


def test_a_second_start_of_the_same_run_says_who_holds_it(start):
    seen = []

    def main(config, run):
        thread = threading.Thread(target=lambda: seen.append(claim(run.folder)))
        thread.start()
        thread.join()

    def claim(folder):
        config = Config(run=RunConfig(root=str(folder.parent), name=folder.name))
        with contextlib.ExitStack() as stack:
            try:
                run_folder.claim(config, "run_test", stack)
            except ConfigError as error:
                return str(error)
        return "claimed"

    assert start(main)[0] == 0
    assert f"held by process {os.getpid()}" in seen[0]


def test_unnamed_runs_never_share_a_folder(tmp_path, start):
    folders = []
    for _ in range(3):
        assert start(lambda config, run: folders.append(run.folder), "--run.name=")[0] == 0
    assert len(set(folders)) == 3


def test_help_lists_every_key_and_runs_nothing(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        launch(lambda config, run: 1 / 0, script=str(tmp_path / "run_test.py"), arguments=["--help"])
    assert not ended.value.code
    text = capsys.readouterr().out
    for name in ("--run.root", "--run.name", "--data.root", "--data.queries", "--model.weights", "--protocol"):
        assert name in text


def test_half_precision_on_a_cpu_is_refused(start):

    code, text = start(
        lambda config, run: precision.choose(config.run.precision, run.world.device), "--run.precision=fp16"
    )
    assert code == 2
    assert "needs a GPU" in text


def test_shares_cover_every_item_once():
    for size in (1, 2, 5):
        worlds = [distributed.World(rank, size, torch.device("cpu")) for rank in range(size)]
        shares = [distributed.shard(range(12), world) for world in worlds]
        assert sorted(item for share in shares for item in share) == list(range(12))


def test_runs_of_a_batch_are_those_of_numpys_array_split():
    for count in range(20):
        for size in (1, 2, 3, 7):
            expected = [part.tolist() for part in np.array_split(np.arange(count), size)]
            assert [list(distributed.share(count, rank, size)) for rank in range(size)] == expected


def test_progress_is_plain_lines_where_nobody_watches(caplog, monkeypatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr("xclip_module.run.progress.time.monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO), Progress(4, name="videos", unit="videos") as progress:
        for _ in range(4):
            progress.advance(1, "video07")
    assert "videos: 2.0 of 4 videos" in caplog.text
    assert "left, video07" in caplog.text
    assert "\r" not in caplog.text


def test_the_commit_is_named_with_a_mark_for_changes():
    commit = environment.describe(torch.device("cpu"), world_size=1, settings={})["commit"]
    assert commit is None or len(commit.split()[0]) == 40
