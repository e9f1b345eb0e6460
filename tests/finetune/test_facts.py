"""What a training says of itself, from a training by hand."""

import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from xclip_module.config import FinetuneConfig
from xclip_module.finetune.facts import announce, facts_of
from xclip_module.run.distributed import World
from xclip_module.training.engine import TrainingProgress

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
    announce(training(skipped={"a": "damaged"}), SimpleNamespace(**rules), 2, World(0, 1, torch.device("cpu")))
    assert caplog.messages == [line, "left out of training: a (damaged)"]
