"""How a prepared training is cut into forwards, and when what happens in it."""

from types import SimpleNamespace

import pytest
import torch

from xclip_module.config import FinetuneConfig
from xclip_module.finetune import preparation
from xclip_module.finetune.preparation import choose_micro_batch, make_rules
from xclip_module.run.distributed import World
from xclip_module.sections import FIND


def world(size=1):
    return World(0, size, torch.device("cpu"))


def training(*, has_val=True, can_choose=True, **section):
    return SimpleNamespace(
        section=FinetuneConfig(**{"batch_size": 10, "monitor": "AUROC", **section}),
        clips=SimpleNamespace(plan=SimpleNamespace(steps_per_epoch=7)),
        data=SimpleNamespace(validation=SimpleNamespace(can_choose=can_choose)),
        has_val=has_val,
        total=21,
    )


@pytest.mark.parametrize(
    ("asked", "size", "expected"), [(0, 1, 10), (0, 3, 4), (3, 1, 3), (99, 1, 10), (99, 4, 3), (1, 4, 1)]
)
def test_a_forward_holds_what_is_asked_for_and_never_more_than_a_share(asked, size, expected):
    assert choose_micro_batch(training(micro_batch_size=asked), world(size)) == expected


def test_what_a_former_start_found_is_not_looked_for_again_but_a_number_overrules_it(monkeypatch):
    tried = []
    monkeypatch.setattr(preparation, "_find_micro_batch", lambda *_: tried.append(1) or 6)
    assert choose_micro_batch(training(micro_batch_size=FIND), world(), former=4) == 4
    assert choose_micro_batch(training(micro_batch_size=2), world(), former=4) == 2
    assert not tried
    assert choose_micro_batch(training(micro_batch_size=FIND), world()) == 6


def test_an_epoch_ends_with_a_validation_unless_steps_are_given():
    assert make_rules(training(), 4).validate_every == 7
    assert make_rules(training(validate_every_steps=3), 4).validate_every == 3
    assert make_rules(training(has_val=False, validate_every_steps=3), 4).validate_every == 0


def test_a_split_that_is_reported_chooses_nothing():
    assert make_rules(training(), 4).monitor == "AUROC"
    assert make_rules(training(can_choose=False), 4).monitor == ""


@pytest.mark.parametrize(
    ("micro", "attempt"),
    [
        (8, "--finetune.micro_batch_size=4"),
        (3, "--finetune.micro_batch_size=1"),
        (1, "--finetune.activation_checkpointing=true"),
    ],
)
def test_a_shortage_of_memory_is_answered_by_half_a_forward_then_by_checkpointing(micro, attempt):
    assert make_rules(training(), micro).if_short == f"{attempt} (the same run goes on with it)"
