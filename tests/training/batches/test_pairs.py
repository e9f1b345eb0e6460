"""Pairs of sentence and video: what an epoch holds, who matches whom, and what a step makes."""

from pathlib import Path

import numpy as np
import pytest

from xclip_module.errors import ConfigError, DataError
from xclip_module.interface import Video
from xclip_module.training.batches import pairs
from xclip_module.training.batches.pairs import PairPlan, PairSet, pair_set

OWNERS = np.array([0, 1, 0, 2, 2, 2, 3])


def small(folder):
    """Four videos with 2, 1, 3 and 1 sentences."""
    videos = tuple(Video(f"v{n}", folder / f"v{n}.mp4", "train", span=(0, n + 1) if n else None) for n in range(4))
    for number, video in enumerate(videos):
        video.source.write_bytes(b"x" * (number + 1))
    texts = tuple(f"sentence {n}" for n in range(len(OWNERS)))
    return pair_set(texts, OWNERS, videos)


def large(videos=9000, each=20):
    """As large as MSR-VTT's expanded sentences."""
    ids = tuple(Video(f"video{n}", Path(), "train") for n in range(videos))
    owner = np.repeat(np.arange(videos), each)
    return PairSet(ids, ("",) * len(owner), owner, owner, np.arange(len(owner)))


def epoch_of(plan, epoch):
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    return [sample for step in steps for sample in plan.samples(step)]


def pairs_of(samples):
    return [(sample.video, sample.sentence) for sample in samples]


def test_every_epoch_holds_every_pair_once_in_an_order_of_its_own(tmp_path):
    plan = PairPlan(small(tmp_path), batch_size=3, seed=5)
    expected = sorted((f"v{video}", row) for row, video in enumerate(OWNERS.tolist()))
    epochs = [pairs_of(epoch_of(plan, epoch)) for epoch in range(4)]
    assert all(sorted(found) == expected for found in epochs)
    assert len(set(map(tuple, epochs))) == 4
    assert [len(plan.samples(step)) for step in range(6)] == [3, 3, 1] * 2
    assert (plan.clips_per_epoch, plan.steps_per_epoch) == (7, 3)


def test_with_one_sentence_every_epoch_holds_every_video_once_and_meets_all_sentences_in_time(tmp_path):
    plan = PairPlan(small(tmp_path), batch_size=4, seed=5, one_sentence=True)
    seen = []
    for epoch in range(60):
        found = epoch_of(plan, epoch)
        assert sorted(sample.video for sample in found) == ["v0", "v1", "v2", "v3"]
        assert all(sample.video == f"v{OWNERS[sample.sentence]}" for sample in found)
        seen += [sample.sentence for sample in found]
    counts = np.bincount(seen)
    assert counts[[1, 6]].tolist() == [60, 60]
    assert min(counts[[0, 2]]) > 15
    assert min(counts[[3, 4, 5]]) > 8


@pytest.mark.parametrize("one_sentence", [False, True])
def test_a_step_is_a_function_of_seed_and_step_alone(tmp_path, one_sentence):
    def plan(seed):
        return PairPlan(small(tmp_path), batch_size=2, seed=seed, one_sentence=one_sentence)

    one, other = plan(5), plan(6)
    forwards = [one.samples(step) for step in range(20)]
    assert forwards == [plan(5).samples(step) for step in reversed(range(20))][::-1]
    assert forwards != [other.samples(step) for step in range(20)]


def test_an_epochs_last_smaller_batch_is_left_out_on_request(tmp_path):
    plan = PairPlan(small(tmp_path), batch_size=3, seed=5, drop_last=True)
    assert plan.steps_per_epoch == 2
    assert len(epoch_of(plan, 0)) == 6
    with pytest.raises(ConfigError, match="7 clips, and finetune.drop_last leaves no batch"):
        PairPlan(small(tmp_path), batch_size=8, seed=5, drop_last=True)


def test_positives_are_the_sentences_of_the_same_video(tmp_path):
    """Against the obvious loops, on batches with one video twice."""
    known = small(tmp_path)
    plan = PairPlan(known, batch_size=5, seed=2)
    for step in range(8):
        samples = plan.samples(step)
        found = plan.positives(samples)
        assert found.rows.tolist() == [sample.sentence for sample in samples]
        assert found.sentences.tolist() == list(range(len(samples)))
        for u, row in enumerate(found.rows):
            for b, sample in enumerate(samples):
                assert found.positives[u, b] == (f"v{OWNERS[row]}" == sample.video)
        assert not found.unknown.any()
    twice = [*plan.samples(0)[:2], plan.samples(0)[0]]
    assert plan.positives(twice).sentences.tolist() == [0, 1, 0]
    assert plan.positives(twice).positives.shape == (2, 3)


def test_without_a_video_its_pairs_go_and_sentences_keep_their_rows(tmp_path):
    known = small(tmp_path)
    left = known.without({"v1", "v2"})
    assert [video.id for video in left.videos] == ["v0", "v3"]
    assert pairs_of(sorted(epoch_of(PairPlan(left, batch_size=2, seed=0), 0))) == [("v0", 0), ("v0", 2), ("v3", 6)]
    assert left.sentences == known.sentences
    assert left.class_of.tolist() == [0, -1, 0, -1, -1, -1, 1]
    with pytest.raises(DataError, match="no training video is left"):
        known.without({"v0", "v1", "v2", "v3"})


def test_the_digest_knows_files_spans_sentences_and_pairs_but_no_place(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    known = small(tmp_path / "a")
    assert known.digest == small(tmp_path / "b").digest
    other_span = (known.videos[0]._replace(span=(0, 9)), *known.videos[1:])
    changed = [
        known._replace(videos=other_span),
        known._replace(sentences=("another", *known.sentences[1:])),
        known._replace(item_video=known.item_video[::-1].copy()),
        known.without({"v3"}),
    ]
    assert len({one.digest for one in (known, *changed)}) == 5
    before = known.digest
    (tmp_path / "a" / "v0.mp4").write_bytes(b"another length")
    assert known.digest != before


@pytest.mark.parametrize(("one_sentence", "steps"), [(False, 600), (True, 30)])
def test_a_step_makes_only_its_own_pairs_and_an_epochs_order_is_drawn_once(monkeypatch, one_sentence, steps):
    """What makes a step of 300 among 180,000 pairs cheap; its seconds are in the benchmark of a training."""
    drawn, made = [], []
    draw, pair = PairPlan._draw_order, pairs.PairSample
    monkeypatch.setattr(PairPlan, "_draw_order", lambda plan, epoch: drawn.append(epoch) or draw(plan, epoch))
    monkeypatch.setattr(pairs, "PairSample", lambda *values: made.append(values) or pair(*values))
    plan = PairPlan(large(), batch_size=300, seed=0, one_sentence=one_sentence)
    assert plan.steps_per_epoch == steps
    for step in (*range(20), steps - 1, steps):
        plan.positives(plan.samples(step))
    assert drawn == [0, 1]
    assert len(made) == 22 * 300
