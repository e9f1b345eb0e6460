"""From curves to moments: edges in seconds, scores worked by hand, candidates beside the search of every interval."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_module.interface import tiou
from xclip_module.moments.proposals import Search, find_components, find_moments, otsu, scan_statistic, suppress

SETTINGS = Search("union", levels=24, nms_tiou=0.5, most=10, reach=1)


def edges_of(count, duration=None):
    """Cells of two seconds; the last one up to the end of the video."""
    return np.append(np.arange(count) * 2.0, duration or 2.0 * count)


def find(scores, duration=None, **changes):
    scores = np.asarray(scores, float)
    return find_moments(scores, scores, edges_of(len(scores), duration), SETTINGS._replace(**changes))


@pytest.mark.parametrize("generator", ["union", "scan", "watershed"])
def test_a_raised_stretch_is_the_best_moment_with_its_cells_whole(generator):
    """Samples 3..5 at stride 2 stand for [6, 12): neither half a cell more nor less."""
    assert find([0, 0, 0, 1, 1, 1, 0, 0, 0, 0], generator=generator)[0][:2] == (6.0, 12.0)


def test_the_score_is_the_scan_statistic_worked_by_hand():
    """3 of 10 ones: sd = sqrt(.21), contrast 1, so sqrt(3 * 7 / 10) / sqrt(.21) = sqrt(10)."""
    assert find([0, 0, 0, 1, 1, 1, 0, 0, 0, 0])[0].score == pytest.approx(10**0.5)


def test_a_long_raised_stretch_beats_a_short_higher_peak():
    """What the bare mean inside, or contrast of means, would get wrong."""
    curve = [0, 0, 3, 0, 0, 0, 0, 0, *[1.5] * 8, 0, 0, 0, 0]
    assert find(curve)[0][:2] == (16.0, 32.0)


def test_a_moment_at_the_end_reaches_the_end_of_the_video():
    assert find([0, 0, 0, 0, 1, 1], duration=12.7)[0][:2] == (8.0, 12.7)


def test_a_constant_curve_or_a_single_sample_says_nothing():
    assert find([0.3] * 10) == find([0.3]) == []


@given(st.integers(0, 10**6), st.integers(3, 60))
def test_the_scan_finds_the_best_of_all_intervals(seed, length):
    curve = np.random.default_rng(seed).normal(size=length)
    pairs = [(a, b) for a, b in itertools.combinations(range(length + 1), 2) if b - a < length]
    best = scan_statistic(curve, np.array(pairs)).max()
    assert find(curve, generator="scan", reach=0)[0].score == pytest.approx(best)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=60), st.sampled_from(["union", "scan", "watershed"]))
def test_moments_are_ranked_positive_inside_the_video_and_apart(scores, generator):
    moments = find(np.round(scores, 2), generator=generator)
    assert len(moments) <= 10
    assert [m.score for m in moments] == sorted((m.score for m in moments), reverse=True)
    for i, moment in enumerate(moments):
        assert 0 <= moment.start < moment.end <= 2.0 * len(scores)
        assert moment.score > 0
        assert all(tiou(moment[:2], other[:2]) <= 0.5 for other in moments[:i])


def test_edges_move_to_where_the_sharp_curve_steps():
    sharp = np.array([0.0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0])
    smooth = np.array([0.0, 0, 0.1, 0.3, 0.5, 0.8, 0.8, 0.6, 0.4, 0.1, 0, 0])
    blurred = find_moments(smooth, sharp, edges_of(12), SETTINGS._replace(reach=0))[0]
    assert find_moments(smooth, sharp, edges_of(12), SETTINGS)[0][:2] == (8.0, 16.0)
    assert blurred[:2] != (8.0, 16.0)


def test_suppression_keeps_the_better_of_two_that_overlap_too_much():
    ranges = np.array([[0, 10], [1, 10], [5, 15], [20, 30]])
    assert suppress(ranges, np.array([1.0, 2.0, 1.5, 0.5]), 0.3, 10).tolist() == [1, 3]
    assert suppress(ranges, np.array([1.0, 2.0, 1.5, 0.5]), 0.9, 2).tolist() == [1, 2]
    # 5 of 15 shared is one third.
    assert suppress(ranges[[0, 2]], np.array([2.0, 1.0]), 1 / 3, 10).tolist() == [0, 1]


def test_otsu_parts_even_neighbouring_floats():
    low = np.nextafter(1.0, 0.0)
    assert low <= otsu(np.array([low, 1.0])) < 1.0


@given(st.lists(st.integers(-99, 99).map(lambda n: n / 10), min_size=2, max_size=40, unique=True))
def test_otsu_is_the_cut_of_least_spread_inside_the_groups(values):
    values = np.array(values)
    threshold = otsu(values)
    inside = [
        ((low - low.mean()) ** 2).sum() + ((high - high.mean()) ** 2).sum()
        for cut in np.sort(values)[:-1]
        for low, high in [(values[values <= cut], values[values > cut])]
    ]
    low, high = values[values <= threshold], values[values > threshold]
    ours = ((low - low.mean()) ** 2).sum() + ((high - high.mean()) ** 2).sum()
    assert ours == pytest.approx(min(inside), abs=1e-9)


def components(curve, **changes):
    options = {"hysteresis": 0.0, "gap": 0, "most": 10, **changes}
    return sorted(m[:2] for m in find_components(np.asarray(curve, float), np.arange(len(curve) + 1) * 2.0, **options))


def test_a_constant_curve_says_nothing():
    assert components([0.3] * 9) == []


def test_a_tool_is_found_every_time_it_shows():
    curve = [0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1, 0]
    assert components(curve) == [(2, 6), (12, 18), (22, 24)]


def test_hysteresis_keeps_a_run_through_a_dip_and_starts_none():
    """Otsu cuts between .4 and 1; far enough down to the ground .4 still belongs to a run, but opens none."""
    dipped = [0, 1, 0.4, 1, 0, 0, 0, 0.4, 0, 0, 0, 0]
    assert components(dipped) == [(2, 4), (6, 8)]
    assert components(dipped, hysteresis=0.9) == [(2, 8)]


def test_gaps_up_to_the_limit_are_joined():
    curve = [0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 0]
    assert components(curve, gap=2) == [(2, 14), (20, 22)]
    assert components(curve, gap=3) == [(2, 22)]
