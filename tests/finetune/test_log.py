"""What a training says: the row on disk, the line in the log, the status; and the facts of a training by hand."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xclip_module.config import FinetuneConfig
from xclip_module.finetune.log import TrainingLog, announce, facts_of
from xclip_module.run.distributed import World
from xclip_module.run.launch import Run
from xclip_module.training.engine import TrainingProgress

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


ROWS = [{"step": 2, "loss": 0.5, "floor": 0.1, "lr": 1e-3, "grad_norm": None, "accuracy": 1.0, "time": "now"}]


def training(*, has_val=True, can_choose=True, missing=None, skipped=None, **progress):
    model = nn.Linear(1000, 100, bias=False)
    model.other = nn.Linear(1000, 100, bias=False).requires_grad_(False)
    words = "val" if can_choose else "test (the split that is reported: it chooses nothing)"
    plan = SimpleNamespace(clips_per_epoch=9, steps_per_epoch=4, training=SimpleNamespace(videos=["a", "b"]))
    return SimpleNamespace(
        section=FinetuneConfig(batch_size=3, lr=1e-3, pretrained_lr_scale=0.1, monitor="AUROC"),
        model=model,
        data=SimpleNamespace(missing=missing or {}, validation=SimpleNamespace(in_words=words, can_choose=can_choose)),
        clips=SimpleNamespace(plan=plan, skipped=skipped or {}),
        trainer=SimpleNamespace(progress=TrainingProgress(step=6, **progress)),
        has_val=has_val,
        start="0123456789abcdef",
        precision="fp32",
        total=12,
        frozen=0,
    )


def facts(made):
    return facts_of(made, "all steps", ROWS, weights="clip.pt", effort={"micro_batch_size": 3, "seconds": 1.5})


def test_the_facts_are_the_ones_of_the_report_in_its_order():
    assert list(facts(training(best_step=4)).items()) == [
        ("weights", "clip.pt (0123456789ab)"),
        ("loss", "multi_positive"),
        ("optimizer", "AdamW (betas 0.9, 0.98), linear warm-up, cosine to 0"),
        ("learning rate", "0.001, towers 0.0001"),
        ("batch_size", 3),
        ("clips", 9),
        ("videos", 2),
        ("steps", 6),
        ("epochs", 1.5),
        ("best_step", 4),
        ("end", "all steps"),
        ("monitor", "AUROC"),
        ("validated_on", "val"),
        ("chosen", "best"),
        ("left out", "no training video"),
        ("skipped_steps", 0),
        ("precision", "fp32"),
        ("frozen", "nothing"),
        ("micro_batch_size", 3),
        ("seconds", 1.5),
        ("curve", [{"step": 2, "loss": 0.5, "floor": 0.1, "lr": 1e-3, "grad_norm": None}]),
        ("validations", []),
    ]


@pytest.mark.parametrize(
    ("changes", "chosen", "validated_on"),
    [
        ({}, "last (undefined on val)", "val"),
        ({"has_val": False}, "last (no val split)", "nothing"),
        (
            {"can_choose": False},
            "last (no split to choose on)",
            "test (the split that is reported: it chooses nothing)",
        ),
    ],
)
def test_without_a_best_step_the_last_is_kept_and_the_reason_said(changes, chosen, validated_on):
    said = facts(training(**changes))
    assert (said["chosen"], said["validated_on"], said["best_step"]) == (chosen, validated_on, 6)


def test_left_out_videos_are_named_by_name_with_the_reason():
    made = training(missing={"b": "no video"}, skipped={"a": "damaged", "c": "too short"})
    assert facts(made)["left out"] == "a (damaged); b (no video); c (too short)"


@pytest.mark.parametrize(("size", "where"), [(1, "one process"), (4, "4 processes")])
def test_what_is_about_to_be_trained_is_said_in_one_line(caplog, size, where):
    rules = SimpleNamespace(validate_every=4, monitor="AUROC")
    with caplog.at_level(logging.INFO, logger="xclip_module"):
        announce(training(), rules, 2, World(0, size, torch.device("cpu")))
    steps = "9 clips of 2 videos, 12 steps of 3 clips (2 in a forward)"
    assert caplog.messages == [f"training 0.1 of 0.2 M parameters in fp32 on {where}: {steps}"]


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        ({"validate_every": 0, "monitor": ""}, "no val video: nothing chooses a best step, the last weights are kept"),
        ({"validate_every": 4, "monitor": ""}, "validated on val; the last weights are kept"),
    ],
)
def test_what_chooses_nothing_is_said_before_it_costs_a_night(caplog, rules, line):
    caplog.set_level(logging.WARNING, logger="xclip_module")
    announce(training(skipped={"a": "damaged"}), SimpleNamespace(**rules), 2, World(0, 1, torch.device("cpu")))
    assert caplog.messages == [line, "left out of training: a (damaged)"]
