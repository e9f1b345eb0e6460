import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_module.evaluation.localisation import Moment, average_precision, segments_from_scores, tiou

SETTINGS = {"stride": 2.0, "smooth_seconds": 0.0, "most": 10, "nms_tiou": 0.5}


def find(scores, duration=None, **changes):
    scores = np.asarray(scores, float)
    times = (np.arange(len(scores)) + 0.5) * 2.0
    return segments_from_scores(times, scores, duration=duration or 2.0 * len(scores), **{**SETTINGS, **changes})


def test_a_raised_stretch_is_the_best_moment_with_its_cells_whole():
    """Samples 3..5 at stride 2 stand for [6, 12): neither half a cell more nor less."""
    best = find([0, 0, 0, 1, 1, 1, 0, 0, 0, 0])[0]
    assert best[:2] == (6.0, 12.0)


def test_the_score_is_the_scan_statistic_worked_by_hand():
    """3 of 10 ones: sd = sqrt(.21), contrast 1, so sqrt(3 * 7 / 10) / sqrt(.21) = sqrt(10)."""
    assert find([0, 0, 0, 1, 1, 1, 0, 0, 0, 0])[0].score == pytest.approx(10**0.5)


def test_a_moment_at_the_end_reaches_the_end_of_the_video():
    assert find([0, 0, 0, 0, 1, 1], duration=12.7)[0][:2] == (8.0, 12.7)


def test_a_constant_curve_says_nothing():
    assert find([0.3] * 10) == []
    assert find([0.3]) == []


@given(st.integers(0, 10**6), st.integers(3, 60), st.floats(0.1, 10), st.floats(-100, 100))
def test_a_rising_linear_change_of_the_scores_changes_nothing(seed, length, scale, shift):
    # Drawn from a continuum: where a sample lies on a flooding level to the last bit, rounding decides.
    scores = np.random.default_rng(seed).normal(size=length)
    plain, changed = find(scores), find(scores * scale + shift)
    np.testing.assert_allclose(np.reshape(plain, (-1, 3)), np.reshape(changed, (-1, 3)), atol=1e-6)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=60), st.floats(0, 20))
def test_moments_are_ranked_positive_inside_the_video_and_apart(scores, smooth):
    moments = find(np.round(scores, 2), smooth_seconds=smooth)
    assert len(moments) <= 10
    assert [m.score for m in moments] == sorted((m.score for m in moments), reverse=True)
    for i, moment in enumerate(moments):
        assert 0 <= moment.start < moment.end <= 2.0 * len(scores)
        assert moment.score > 0
        assert all(tiou(moment[:2], other[:2]) <= 0.5 for other in moments[:i])


def test_smoothing_joins_what_noise_has_cut():
    curve = [0, 0, 1, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert find(curve, smooth_seconds=2.0)[0][:2] == (4.0, 14.0)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [((0, 4), (4, 8), 0), ((0, 4), (2, 6), 1 / 3), ((1, 2), (0, 4), 0.25), ((5, 6), (0, 1), 0)],
)
def test_tiou_of_hand_worked_pairs(first, second, expected):
    assert tiou(first, second) == pytest.approx(expected)


def test_precision_over_all_videos_is_worked_by_hand():
    """Hits at ranks 1 and 3 of 3 truths: precisions 1 and 2/3, so (1 + 2/3) / 3."""
    truth = {"a": [(0, 10), (20, 30)], "b": [(0, 10)]}
    predictions = [("a", Moment(0, 10, 5)), ("b", Moment(50, 60, 4)), ("b", Moment(0, 10, 3))]
    assert average_precision(predictions, truth, 0.5) == pytest.approx((1 + 2 / 3) / 3)


def test_a_second_prediction_of_a_found_segment_is_a_false_alarm():
    truth = {"a": [(0, 10)], "b": [(0, 10)]}
    twice = [("a", Moment(0, 10, 5)), ("a", Moment(0, 9, 4)), ("b", Moment(0, 10, 3))]
    assert average_precision(twice, truth, 0.5) == pytest.approx((1 + 2 / 3) / 2)


def test_the_threshold_itself_counts():
    assert average_precision([("a", Moment(0, 5, 1))], {"a": [(0, 10)]}, 0.5) == 1.0


def test_a_query_that_happens_nowhere_has_no_precision_and_one_without_answer_has_zero():
    assert np.isnan(average_precision([("a", Moment(0, 5, 1))], {"a": []}, 0.5))
    assert average_precision([], {"a": [(0, 5)]}, 0.5) == 0.0


spans = st.tuples(st.integers(0, 20), st.integers(1, 10)).map(lambda p: (float(p[0]), float(p[0] + p[1])))
predicted = st.lists(st.tuples(st.sampled_from("ab"), spans, st.integers(0, 3)), max_size=8)


@given(predicted, st.dictionaries(st.sampled_from("ab"), st.lists(spans, max_size=3)), st.randoms())
def test_precision_is_a_share_falls_with_tiou_and_ignores_the_input_order(predictions, truth, random):
    items = [(video, Moment(*span, float(score))) for video, span, score in predictions]
    if not any(truth.values()):
        return
    values = [average_precision(items, truth, threshold) for threshold in (0.1, 0.5, 0.9)]
    assert all(0 <= value <= 1 for value in values)
    shuffled = items.copy()
    random.shuffle(shuffled)
    assert average_precision(shuffled, truth, 0.5) == values[1]
    worse = [*items, ("a", Moment(900.0, 901.0, -1.0))]
    assert average_precision(worse, truth, 0.5) <= values[1] + 1e-12


@given(st.dictionaries(st.sampled_from("abc"), st.lists(spans, max_size=3, unique=True), min_size=1))
def test_perfect_answers_have_precision_one(truth):
    if any(truth.values()):
        items = [(video, Moment(*span, 1.0)) for video, segments in truth.items() for span in segments]
        assert average_precision(items, truth, 0.95) == 1.0
