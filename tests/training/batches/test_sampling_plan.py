from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_training import corpus, small_set

from xclip_module.errors import ConfigError
from xclip_module.interface import Query
from xclip_module.training.batches.sampling_plan import Plan
from xclip_module.training.batches.training_set import training_set

SET = small_set()
COUNT = len(SET.item_time)  # 88


def plan(**changes):
    return Plan(SET, **{"batch_size": 8, "seed": 3, "jitter_seconds": 0.7, **changes})


def epoch_of(chosen, number=0):
    steps = range(number * chosen.steps_per_epoch, (number + 1) * chosen.steps_per_epoch)
    return [sample for step in steps for sample in chosen.samples(step)]


def test_every_item_comes_once_an_epoch_in_another_order_each_time():
    orders = [[sample.item for sample in epoch_of(plan(), number)] for number in range(3)]
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert [len(plan().samples(step)) for step in (0, 9, 10, 11)] == [8, 8, 8, 8]
    assert [len(plan(batch_size=50).samples(step)) for step in range(4)] == [50, 38, 50, 38]


def test_the_smaller_last_batch_may_be_left_out():
    chosen = plan(drop_last=True, batch_size=25)
    assert chosen.steps_per_epoch == 3
    assert {len(chosen.samples(step)) for step in range(12)} == {25}
    with pytest.raises(ConfigError, match="batch_size=89: an epoch has 88 clips"):
        plan(batch_size=89, drop_last=True)


SETTINGS = {
    "plain": {},
    "balanced": {"balance_phases": True},
    "hard": {"hard_negatives": 0.5},
    "both": {"hard_negatives": 0.25, "balance_phases": True},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_samples_are_a_function_of_seed_and_step(name):
    """Asked in any order, twice, of a fresh object: the same; of another seed: others."""
    once = plan(**SETTINGS[name])
    forwards = [once.samples(step) for step in range(40)]
    backwards = [once.samples(step) for step in reversed(range(40))]
    assert backwards[::-1] == forwards
    assert plan(**SETTINGS[name]).samples(33) == forwards[33]
    assert plan(**SETTINGS[name], seed=4).samples(33) != forwards[33]


def test_the_batch_size_does_not_change_what_is_drawn():
    assert epoch_of(plan(), 2) == epoch_of(plan(batch_size=13), 2)


def test_phases_are_drawn_equally_often_and_no_clip_twice_before_all_of_its_phase():
    chosen = plan(balance_phases=True)
    every = [epoch_of(chosen, number) for number in range(4)]
    for samples in every:
        assert len(samples) == COUNT
        phases = Counter(SET.phase(s.video, float(SET.item_time[s.item])) for s in samples)
        assert set(phases) == {0, 1, 2}
        assert max(phases.values()) - min(phases.values()) <= 1
    drawn = Counter(sample.item for samples in every for sample in samples)
    for phase in range(3):
        mine = [
            i for i in range(COUNT) if SET.phase(SET.videos[SET.item_video[i]].id, float(SET.item_time[i])) == phase
        ]
        counts = [drawn[item] for item in mine]
        assert max(counts) - min(counts) <= 1


def test_balance_without_phases_is_refused():
    named = corpus(queries=(Query("T0", "a tool", "tool"),))
    tools = training_set(named, texts={"T0": ("a tool",)}, use_tools=True, clip_stride_seconds=1.0)
    with pytest.raises(ConfigError, match="no training clip lies in a phase"):
        Plan(tools, batch_size=2, seed=0, balance_phases=True)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 200), jitter=st.floats(0, 5), share=st.floats(0, 0.5))
def test_a_samples_sentence_holds_at_its_time_which_lies_near_its_item_in_the_video(seed, step, jitter, share):
    chosen = plan(seed=seed, jitter_seconds=jitter, hard_negatives=share)
    for sample in chosen.samples(step):
        track = SET.tracks[sample.video]
        assert SET.videos[SET.item_video[sample.item]].id == sample.video
        assert abs(sample.time - SET.item_time[sample.item]) <= jitter
        assert 0 <= sample.time < track.seconds
        assert SET.holds(sample.video, sample.time)[SET.class_of[sample.sentence]]


def test_classes_are_drawn_alike_and_so_are_their_sentences():
    """At 3.5 s of video b hold P0 and T0, two sentences each: a quarter of the draws for each."""
    item = np.flatnonzero((SET.item_video == 1) & (SET.item_time == 3.5))
    alone = SET._replace(item_video=SET.item_video[item], item_time=SET.item_time[item])
    chosen = Plan(alone, batch_size=1, seed=0)
    drawn = Counter(chosen.samples(step)[0].sentence for step in range(400))
    assert set(drawn) == {0, 1, 6, 7}
    assert all(60 < count < 140 for count in drawn.values())


def test_hard_negatives_come_from_the_phase_beside_the_first_samples_and_lie_near_the_border():
    plain, chosen = plan(), plan(hard_negatives=0.25)
    replaced = 0
    for step in range(60):
        before, after = plain.samples(step), chosen.samples(step)
        partners = round(0.25 * len(after))
        assert after[: len(after) - partners] == before[: len(after) - partners]
        for anchor, partner in zip(after[:partners], after[len(after) - partners :], strict=True):
            segments = SET.phase_segments(anchor.video)
            where = [n for n, (start, end, _) in enumerate(segments) if start <= anchor.time < end]
            beside = [n for n in (where[0] - 1, where[0] + 1) if 0 <= n < len(segments)] if where else []
            beside = [n for n in beside if segments[n][2] != segments[where[0]][2]]
            if not beside:
                assert partner in before
                continue
            replaced += 1
            assert partner.video == anchor.video
            (own,) = [n for n in beside if segments[n][0] <= partner.time < segments[n][1]]
            start, end, _ = segments[own]
            border = start if own > where[0] else end
            time = float(SET.item_time[partner.item])
            inside = [t for t in np.arange(30) + 0.5 if start <= t < end]
            nearest = sorted(inside, key=lambda t: abs(t - border))[: -(-len(inside) // 3)]
            assert time in nearest
    assert replaced > 50


def test_positives_are_those_of_a_loop_over_all_pairs():
    chosen = plan(batch_size=20)
    moments = corpus().moments
    for all_sentences in (False, True):
        samples = chosen.samples(5)
        rows, sentences, positives, unknown = chosen.positives(samples, all_sentences=all_sentences)
        if all_sentences:
            assert rows.tolist() == list(range(10))
        else:
            assert rows.tolist() == list(dict.fromkeys(s.sentence for s in samples))
        assert [rows[place] for place in sentences] == [s.sentence for s in samples]
        for u, row in enumerate(rows):
            name = SET.classes[SET.class_of[row]].name
            for b, sample in enumerate(samples):
                found = moments[sample.video].get(name)
                assert unknown[u, b] == (found is None)
                assert positives[u, b] == any(start <= sample.time < end for start, end in found or ())
        assert unknown.any()
