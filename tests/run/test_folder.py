"""The run folder: what stands in it, its name and its lock."""

import json
import os
import threading

import torch

from xclip_module.config import Config, RunConfig, to_json
from xclip_module.errors import ConfigError
from xclip_module.run import folder as run_folder
from xclip_module.run.distributed import World


def test_the_run_folder_tells_what_was_run(start, tmp_path):
    def main(config, run):
        run.describe_environment({"clip_seconds": 16.0})
        assert "settings.clip_seconds" in run.environment
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
        thread = threading.Thread(target=lambda: seen.append(lock(run.folder)))
        thread.start()
        thread.join()

    def lock(folder):
        values = to_json(Config(run=RunConfig(root=str(folder.parent), name=folder.name)))
        try:
            with run_folder.locked_folder("run_test", values, World(0, 1, "cpu"), resumes=False):
                return "locked"
        except ConfigError as error:
            return str(error)

    assert start(main)[0] == 0
    assert f"held by process {os.getpid()}" in seen[0]


def test_unnamed_runs_never_share_a_folder(tmp_path, start):
    folders = []
    for _ in range(3):
        assert start(lambda config, run: folders.append(run.folder), "--run.name=")[0] == 0
    assert len(set(folders)) == 3
