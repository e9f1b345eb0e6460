import re
import threading

import pytest
import torch
from support.small_training import NumberedFrames, small_set

from xclip_module.errors import DataError
from xclip_module.run.distributed import World
from xclip_module.training.batches.augment import Augmentation
from xclip_module.training.batches.loader import Loader
from xclip_module.training.batches.sampling_plan import Plan

SET = small_set()
INPUT_IDS = torch.arange(60).view(10, 6)
MASK = torch.arange(6) < (torch.arange(10) % 5 + 2)[:, None]
AUGMENTATION = Augmentation(size=12, crop_scale=0.5, flip=0.5, colour=0.3)


def loader(*, threads=1, rank=0, size=1, frames=None, batch_size=8, all_sentences=False, **changes):
    plan = Plan(SET, **{"batch_size": batch_size, "seed": 5, "jitter_seconds": 0.5, **changes})
    return Loader(
        plan=plan,
        frames=frames or NumberedFrames(),
        input_ids=INPUT_IDS,
        mask=MASK,
        augmentation=AUGMENTATION,
        world=World(rank, size, torch.device("cpu")),
        threads=threads,
        all_sentences=all_sentences,
    )


def collect(start, stop, **settings):
    return list(loader(**settings).batches(start, stop))


def same(one, other):
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(one, other, strict=True))


def clip_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("clips")]


@pytest.mark.parametrize("threads", [2, 4])
def test_batches_are_the_same_for_any_number_of_threads_and_any_first_step(threads):
    expected = collect(0, 14)
    found = collect(0, 14, threads=threads)
    assert len(found) == len(expected) == 14
    assert all(map(same, found, expected))
    assert all(map(same, collect(9, 14, threads=threads), expected[9:]))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_shares_of_all_processes_are_the_batch_of_one(size):
    """Two epochs; the last batch of each has two clips: more processes than clips."""
    whole = collect(0, 6, batch_size=43)
    shares = [collect(0, 6, batch_size=43, rank=rank, size=size) for rank in range(size)]
    assert [len(batch.frames) for batch in whole] == [43, 43, 2] * 2
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert torch.equal(torch.cat([part.frames for part in parts]), batch.frames)
        counts = [len(part.frames) for part in parts]
        assert counts == sorted(counts, reverse=True)
        assert max(counts) - min(counts) <= 1
        assert [part.start for part in parts] == [sum(counts[:rank]) for rank in range(size)]
        assert torch.equal(torch.cat([part.shown for part in parts]), batch.shown)
        others = [one._replace(frames=0, shown=0, start=0) for one in (batch, *parts)]
        assert all(same(others[0], part) for part in others[1:])


def test_an_empty_share_has_the_shape_of_clips():
    (batch,) = collect(2, 3, batch_size=43, rank=4, size=5, threads=2)
    assert batch.frames.shape == (0, 4, 3, 12, 12)
    assert batch.frames.dtype == torch.uint8
    assert len(batch.names) == 2


def test_a_batch_is_what_its_plan_says():
    made = loader(hard_negatives=0.25)
    plan = Plan(SET, batch_size=8, seed=5, jitter_seconds=0.5, hard_negatives=0.25)
    for step, batch in enumerate(made.batches(0, 3)):
        samples = plan.samples(step)
        found = plan.positives(samples)
        assert batch.names == tuple(f"{sample.video} at {sample.time:.1f} s" for sample in samples)
        assert torch.equal(batch.input_ids, INPUT_IDS[found.rows])
        assert torch.equal(batch.mask, MASK[found.rows])
        assert batch.sentences.tolist() == found.sentences.tolist()
        assert batch.positives.tolist() == found.positives.tolist()
        assert batch.unknown.tolist() == found.unknown.tolist()
        assert batch.sentences.dtype == batch.input_ids.dtype == torch.int64


def test_for_classification_all_sentences_take_part():
    (batch,) = collect(0, 1, all_sentences=True)
    assert torch.equal(batch.input_ids, INPUT_IDS)
    assert batch.positives.shape == batch.unknown.shape == (10, 8)


def test_every_clip_of_every_epoch_has_a_view_of_its_own():
    """One and the same clip, two epochs of 44 and 44: 176 views."""

    class Same(NumberedFrames):
        def clip(self, video, time):
            return torch.arange(256, dtype=torch.uint8).view(16, 16).expand(4, 3, 16, 16)

    views = [clip.numpy().tobytes() for batch in collect(0, 4, batch_size=44, frames=Same()) for clip in batch.frames]
    assert len(set(views)) == len(views) == 176


@pytest.mark.parametrize("threads", [1, 2])
def test_slots_that_a_short_clip_leaves_are_black_and_not_shown(threads):
    """Videos of 4, 1 and 3 frames."""
    lengths = {"a": 4, "b": 1, "c": 3}

    class Short(NumberedFrames):
        def clip(self, video, time):
            return super().clip(video, time)[: lengths[video]]

    whole, cut = collect(0, 3, threads=threads), collect(0, 3, threads=threads, frames=Short())
    for one, other in zip(whole, cut, strict=True):
        counts = torch.tensor([lengths[name[0]] for name in other.names])
        assert one.shown.all()
        assert torch.equal(other.shown, torch.arange(4) < counts[:, None])
        assert torch.equal(other.frames, one.frames * other.shown[:, :, None, None, None])


class BrokenFrames(NumberedFrames):
    def clip(self, video, time):
        if video == "b":
            raise DataError("cannot decode", "b.mp4", "damaged at 3.0 s")
        return super().clip(video, time)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_clip_that_cannot_be_read_is_named(threads):
    with pytest.raises(DataError, match=r"cannot prepare clip: b at \d+\.\d s: cannot decode: b.mp4: damaged at 3.0 s"):
        collect(0, 12, frames=BrokenFrames(), threads=threads)
    assert not clip_threads()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_mistake_of_ours_names_the_clip_too(threads):
    class Odd(NumberedFrames):
        def clip(self, video, time):
            return super().clip(video, time).repeat(2, 1, 1, 1)

    with pytest.raises(RuntimeError) as ended:
        collect(0, 12, frames=Odd(), threads=threads)
    assert re.fullmatch(r"while clip [abc] at \d+\.\d s was prepared", ended.value.__notes__[0])


def test_closing_ends_the_threads():
    batches = loader(threads=3).batches(0, 100)
    next(batches)
    assert clip_threads()
    batches.close()
    assert not clip_threads()


def test_no_more_is_prepared_than_a_few_batches():
    asked = []

    class Counting(NumberedFrames):
        def clip(self, video, time):
            asked.append(video)
            return super().clip(video, time)

    batches = loader(threads=4, frames=Counting()).batches(0, 100)
    next(batches)
    batches.close()
    assert len(asked) <= 4 * 8


def test_threads_that_prepare_clips_compute_on_one_core_and_leave_the_others_alone():
    seen = []

    class Looking(NumberedFrames):
        def clip(self, video, time):
            seen.append(torch.get_num_threads())
            return super().clip(video, time)

    before = torch.get_num_threads()
    collect(0, 2, frames=Looking(), threads=2)
    assert set(seen) == {1}
    assert torch.get_num_threads() == before
