"""Where the numbers of a training go: the row on disk, the line in the log, the status."""

import json
import logging

import pytest
import torch

from xclip_module.finetune.log import TrainingLog
from xclip_module.run.distributed import World
from xclip_module.run.launch import Run

ROW = {
    "step": 20,
    "loss": 1.23456,
    "floor": 0.5,
    "accuracy": 0.75,
    "lr": 1e-4,
    "grad_norm": 2.34567,
    "scale": 65536.0,
    "skipped": 1,
    "clips_per_second": 12.34,
    "data_wait": 0.1234,
    "eta_seconds": 3725.9,
}


@pytest.fixture
def lines(tmp_path, caplog):
    """A log of a run without a terminal, its folder, and what it said."""
    run = Run(tmp_path, World(0, 1, torch.device("cpu")), is_terminal=False)
    with caplog.at_level(logging.INFO, logger="xclip_module"), TrainingLog(run, step=0, total=100) as training_log:
        yield training_log, tmp_path, caplog


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_row_is_recorded_whole_and_stands_in_the_log_as_one_line(lines):
    training_log, folder, caplog = lines
    training_log.row(ROW)
    (row,) = rows(folder)
    assert {name: row[name] for name in ROW} == ROW
    assert set(row) - set(ROW) == {"time", "memory_gb"}
    head, tail = caplog.messages[-1].split("  memory ")
    assert head == (
        "step 20/100  loss 1.2346 (floor 0.500)  lr 1.00e-04  grad norm 2.35  scale 65536  skipped 1  clips/s 12.3  "
        "data wait 12%"
    )
    assert tail.endswith(" GB  ETA 1:02:05")
    status = json.loads((folder / "status.json").read_text())
    assert (status["phase"], status["step"], status["steps"]) == ("training", 20, 100)


def test_a_number_that_is_not_finite_is_called_so(lines):
    training_log, folder, caplog = lines
    training_log.row({**ROW, "loss": None, "grad_norm": None})
    assert rows(folder)[0]["loss"] is None
    assert "loss not finite (floor 0.500)" in caplog.messages[-1]
    assert "grad norm not finite" in caplog.messages[-1]


def test_a_validation_names_split_and_step_and_what_is_undefined(lines):
    training_log, folder, caplog = lines
    training_log.validation(5, {"AUROC": 0.81234, "mAP@0.5": None}, "val")
    (row,) = rows(folder)
    row.pop("time")
    assert row == {"step": 5, "split": "val", "AUROC": 0.81234, "mAP@0.5": None}
    assert caplog.messages[-1] == "val at step 5: AUROC 0.812  mAP@0.5 –"
