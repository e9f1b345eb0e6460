"""z-scores, Gaussian and the comparison with the other queries, beside the formulas."""

import numpy as np
import pytest

from xclip_module.moments.tracks import QUERY_SET, SIMILARITY, make_curves, standardise

SCORES = np.random.default_rng(5).normal(size=(5, 40))
KINDS = ["phase", "tool", "phase", "phase", "tool"]


def test_z_scores_have_mean_zero_and_spread_one_and_a_constant_row_becomes_zero():
    rows = standardise(np.array([[1.0, 2, 6], [0.1, 0.1, 0.1]], np.float32))
    assert rows[0].mean() == pytest.approx(0)
    assert rows[0].std() == pytest.approx(1)
    assert (rows[1] == 0).all()


def curves_of(scores, kinds, track=QUERY_SET, query_norm="mean", sigma=0.0):
    options = {"sigmas": [sigma] * len(kinds), "track": track, "query_norm": query_norm, "temperature": 0.5}
    return make_curves(np.asarray(scores, float), kinds, **options).smooth


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
