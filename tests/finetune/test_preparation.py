"""How a prepared training is cut into forwards, when what happens in it, and its batches, made-up ones too."""

from types import SimpleNamespace

import pytest
import torch
from support.small_training import NumberedFrames, small_set

from xclip_module.config import FinetuneConfig
from xclip_module.finetune import preparation
from xclip_module.finetune.preparation import Clips, choose_micro_batch, load_clips, made_up_batch, make_rules
from xclip_module.interface import Picture
from xclip_module.models.tokenizer import Tokens
from xclip_module.run.distributed import World
from xclip_module.sections import FIND
from xclip_module.tasks.training_data import TrainingData
from xclip_module.training.batches.sampling_plan import Plan


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


ALONE = World(0, 1, torch.device("cpu"))
SET = small_set()


@pytest.fixture
def data():
    ids = torch.arange(60).view(10, 6)
    return TrainingData(
        set=SET,
        tokens=Tokens(ids, ids % 2 == 0, {}),
        picture=Picture(16, (0.5,) * 3, (0.5,) * 3),
        place=None,
        grid=NumberedFrames.grid,
        plan=lambda training: Plan(training, batch_size=4, seed=1),
        missing={},
        validation=None,
        scored=(),
    )


def batches(data, steps=(0, 3), **section):
    clips = Clips(NumberedFrames(), data.plan(SET), {})
    return list(load_clips(FinetuneConfig(crop_scale=1.0, colour=0.0, **section), data, clips, ALONE, steps))


def test_clips_are_those_of_the_plan_and_look_as_the_section_says(data):
    plain, mirrored = batches(data), batches(data, flip=1.0)
    samples = data.plan(SET).samples(1)
    assert plain[1].names == tuple(sample.name for sample in samples)
    expected = torch.stack([NumberedFrames().clip(sample.video, sample.time) for sample in samples])
    assert torch.equal(plain[1].frames, expected)
    assert all(torch.equal(a.frames.flip(-1), b.frames) for a, b in zip(plain, mirrored, strict=True))


def test_only_a_classification_meets_all_sentences(data):
    assert all(len(batch.input_ids) == 10 for batch in batches(data, loss="classification"))
    assert all(len(batch.input_ids) <= 4 for batch in batches(data, loss="infonce"))


@pytest.mark.parametrize("clips", [1, 4, 23])
def test_a_made_up_batch_is_as_large_as_a_real_one_and_every_clip_has_its_sentence(data, clips):
    batch = made_up_batch(data, clips)
    assert batch.frames.shape == (clips, 4, 3, 16, 16)
    assert batch.frames.dtype == torch.uint8
    assert batch.shown.all()
    assert len(batch.input_ids) == len(batch.mask) == min(clips, 10)
    assert batch.positives.shape == batch.unknown.shape == (min(clips, 10), clips)
    assert batch.positives[batch.sentences, torch.arange(clips)].all()
    assert not batch.unknown.any()
    assert len(batch.names) == clips
