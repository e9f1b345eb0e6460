"""From the scores of a video to its answers under every track."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_module.config import EvalConfig
from xclip_module.interface import Curve, Question
from xclip_module.moments.answers import answer
from xclip_module.moments.tracks import PROCEDURE, QUERY_SET, SIMILARITY

SCORES = np.random.default_rng(5).normal(size=(5, 40))
QUESTIONS = [
    Question(name, kind) for name, kind in zip("abcde", ["phase", "tool", "phase", "phase", "tool"], strict=True)
]


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
    located = answers(scores, PROCEDURE, [("a", "c", "d")])
    assert [located.moments[name][0][:2] for name in "acd"] == [(0, 26), (26, 54), (54, 80)]
    assert located.ranking[2, 13:27].min() > located.ranking[2, :13].max()


def test_background_sentences_are_taken_away_before_anything_else():
    curve = Curve("v", np.arange(40) * 2.0 + 1.0, SCORES, 80.0, background=SCORES[0])
    located = answer(curve, QUESTIONS, track=SIMILARITY, stride=2.0, section=EvalConfig())
    np.testing.assert_array_equal(located.ranking, SCORES - SCORES[0])
    assert located.moments["a"] == []
