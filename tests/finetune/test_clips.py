"""Batches as the configuration asks for them, and one that is made up to try how much memory a real one takes."""

import pytest
import torch
from support.small_training import NumberedFrames, small_set

from xclip_module.config import FinetuneConfig
from xclip_module.finetune.clips import Clips, load_clips, made_up_batch
from xclip_module.interface import Picture
from xclip_module.models.tokenizer import Tokens
from xclip_module.run.distributed import World
from xclip_module.tasks.training_data import TrainingData
from xclip_module.training.batches.sampling_plan import Plan

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
