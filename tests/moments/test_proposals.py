"""From curves to moments: edges in seconds, scores worked by hand, candidates beside the search of every interval."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_module.config import EvalConfig
from xclip_module.evaluation.segments import tiou
from xclip_module.interface import Curve, Moment, Question
from xclip_module.moments.answers import answer
from xclip_module.moments.procedure_order import decode_order, first_in_order
from xclip_module.moments.proposals import Search, find_components, find_moments, otsu, scan_statistic, suppress
from xclip_module.moments.tracks import PROCEDURE, QUERY_SET, SIMILARITY, make_curves, standardise

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
    assert find_components(np.full(9, 0.3), edges_of(9), hysteresis=0.25, gap=2, most=5) == []


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
    return sorted(m[:2] for m in find_components(np.asarray(curve, float), edges_of(len(curve)), **options))


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


def best_order_by_trying(curves, orders):
    """Every way to cut the samples into the phases of every order, slowly."""
    rows, samples = curves.shape
    best = -np.inf
    for order in orders:
        for path in itertools.combinations_with_replacement(range(rows), samples):
            best = max(best, sum(curves[order[place], t] for t, place in enumerate(path)))
    return best


@given(st.integers(0, 10**6), st.integers(1, 7))
def test_the_decoded_order_is_the_best_of_all_that_are_allowed(seed, samples):
    curves = np.random.default_rng(seed).normal(size=(3, samples))
    orders = [(0, 1, 2), (0, 2, 1)]
    spans = decode_order(curves, orders)
    total = sum(curves[row, start:end].sum() for row, (start, end) in spans.items())
    assert total == pytest.approx(best_order_by_trying(curves, orders))
    covered = sorted(spans.values())
    assert [start for start, _ in covered] == [0, *(end for _, end in covered[:-1])]
    assert covered[-1][1] == samples


def test_the_moment_of_the_order_stands_first_and_replaces_what_overlaps_it():
    curve, edges = np.array([0.0, 0, 1, 1, 0, 0]), edges_of(6)
    found = [Moment(4, 10, 5.0), Moment(0, 2, 1.0)]
    first = first_in_order(curve, found, (2, 4), edges, nms_tiou=0.3)
    assert [m[:2] for m in first] == [(4, 8), (0, 2)]
    assert first[0].score > 1000
    assert first_in_order(curve, found, None, edges, nms_tiou=0.3) == found


def test_z_scores_have_mean_zero_and_spread_one_and_a_constant_row_becomes_zero():
    rows = standardise(np.array([[1.0, 2, 6], [0.1, 0.1, 0.1]], np.float32))
    assert rows[0].mean() == pytest.approx(0)
    assert rows[0].std() == pytest.approx(1)
    assert (rows[1] == 0).all()


def curves_of(scores, kinds, track=QUERY_SET, query_norm="mean", sigma=0.0):
    options = {"sigmas": [sigma] * len(kinds), "track": track, "query_norm": query_norm, "temperature": 0.5}
    return make_curves(np.asarray(scores, float), kinds, **options).smooth


SCORES = np.random.default_rng(5).normal(size=(5, 40))
KINDS = ["phase", "tool", "phase", "phase", "tool"]


def test_the_mean_over_the_phases_is_taken_away_and_tools_keep_their_curve():
    curves = curves_of(SCORES, KINDS)
    np.testing.assert_allclose(curves[[0, 2, 3]].sum(axis=0), 0, atol=1e-12)
    np.testing.assert_array_equal(curves[[1, 4]], standardise(SCORES)[[1, 4]])


def test_with_softmax_the_phases_share_one():
    curves = curves_of(SCORES, KINDS, query_norm="softmax")
    np.testing.assert_allclose(curves[[0, 2, 3]].sum(axis=0), 1)
    z = standardise(SCORES)[[0, 2, 3]]
    np.testing.assert_allclose(curves[[0, 2, 3]], np.exp(z / 0.5) / np.exp(z / 0.5).sum(axis=0))


def test_similarity_only_ignores_what_the_other_queries_score():
    """A query's moments stay the same whatever else is asked; under +query-set they may not."""
    for track, is_same in ((SIMILARITY, True), (QUERY_SET, False)):
        alone = curves_of(SCORES[:3], KINDS[:3], track=track)
        other = curves_of([SCORES[0], *-SCORES[1:3]], KINDS[:3], track=track)
        assert (alone[0] == other[0]).all() == is_same


def test_a_single_query_has_nothing_to_compare_with():
    np.testing.assert_array_equal(curves_of(SCORES[:1], ["free"]), standardise(SCORES[:1]))


def test_smoothing_is_the_gaussian_with_mirrored_ends():
    """An impulse spreads to the kernel; a step far from the ends keeps the ends' level."""
    row = np.zeros(41)
    row[20] = 1.0
    smooth = curves_of([row], ["free"], sigma=2.0)[0]
    kernel = np.exp(-0.5 * (np.arange(-8, 9) / 2.0) ** 2)
    scaled = standardise(row[None])[0]
    expected = scaled[0] + (scaled[20] - scaled[0]) * kernel / kernel.sum()
    np.testing.assert_allclose(smooth[12:29], expected, atol=1e-12)


def test_a_peak_at_the_border_is_mirrored_so_that_nothing_leaks_out():
    """Half a step function from the border on: what lies beyond is the same again, and the sum of weights stays one."""
    row = np.zeros(41)
    row[0] = 1.0
    smooth = curves_of([row], ["free"], sigma=2.0)[0]
    kernel = np.exp(-0.5 * (np.arange(-8, 9) / 2.0) ** 2) / np.exp(-0.5 * (np.arange(-8, 9) / 2.0) ** 2).sum()
    scaled = standardise(row[None])[0]
    assert smooth[0] == pytest.approx(scaled[1] + (scaled[0] - scaled[1]) * (kernel[8] + kernel[9]))


QUESTIONS = [Question(name, kind) for name, kind in zip("abcde", KINDS, strict=True)]


def answers(scores, track=SIMILARITY, orders=(), **changes):
    section = EvalConfig(**changes)
    curve = Curve("v", np.arange(40) * 2.0 + 1.0, np.asarray(scores), 80.0)
    return answer(curve, QUESTIONS, track=track, stride=2.0, section=section, orders=orders)


@pytest.mark.parametrize("track", [SIMILARITY, QUERY_SET, PROCEDURE])
@given(scale=st.floats(0.1, 10), shift=st.floats(-100, 100))
def test_a_rising_linear_change_of_one_querys_scores_changes_no_moment(track, scale, shift):
    changed = SCORES.copy()
    changed[2] = changed[2] * scale + shift
    orders = [("a", "c", "d")]
    plain, other = answers(SCORES, track, orders), answers(changed, track, orders)
    for name in "abcde":
        ours, theirs = (np.reshape(one.moments[name], (-1, 3)) for one in (plain, other))
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_samples_are_ranked_by_raw_scores_under_similarity_only_and_by_curves_else():
    np.testing.assert_array_equal(answers(SCORES).ranking, SCORES)
    assert (answers(SCORES, QUERY_SET).ranking != SCORES).any()


def test_the_order_lifts_a_phase_where_it_was_decoded():
    """Three phases in turn: each one's first moment is its own third, though the middle one's curve is faint."""
    holds = np.repeat(np.eye(3), [13, 14, 13], axis=1)
    scores = np.zeros((5, 40))
    scores[[0, 2, 3]] = holds * np.array([[1.0], [0.4], [1.0]]) + 0.05 * SCORES[[0, 2, 3]]
    found = answers(scores, PROCEDURE, [("a", "c", "d")])
    assert [found.moments[name][0][:2] for name in "acd"] == [(0, 26), (26, 54), (54, 80)]
    assert found.ranking[2, 13:27].min() > found.ranking[2, :13].max()


def test_background_sentences_are_taken_away_before_anything_else():
    curve = Curve("v", np.arange(40) * 2.0 + 1.0, SCORES, 80.0, background=SCORES[0])
    found = answer(curve, QUESTIONS, track=SIMILARITY, stride=2.0, section=EvalConfig())
    np.testing.assert_array_equal(found.ranking, SCORES - SCORES[0])
    assert found.moments["a"] == []
