"""Intervals of differences, worked by hand and beside a known distribution."""

import numpy as np
import pytest

from xclip_module.reporting.differences import independent, paired


def test_a_paired_interval_worked_by_hand():
    """Differences 0.1, 0, 0.2; the fourth draw is undefined. 2.5 % of three values lies 0.05 steps above the least."""
    draws = (np.array([0.1, 0.2, 0.3, np.nan]), np.array([0.2, 0.2, 0.5, 0.9]))
    found = paired(0.2, 0.3, draws)
    assert found.value == pytest.approx(0.1)
    assert found.bounds == pytest.approx((0.005, 0.195))
    assert found.excludes_zero
    assert paired(None, 0.3, draws).value is None
    assert paired(0.1, 0.2, (np.array([np.nan]), np.array([1.0]))).bounds is None


def test_the_gap_between_splits_does_not_pair_draws_that_have_nothing_in_common():
    """Equal replicates of two splits have a gap of 0 in every draw when paired; videos that differ vary."""
    values = np.random.default_rng(0).normal(size=4000)
    low, high = independent(0.0, 0.0, (values, values)).bounds
    assert (low, high) == pytest.approx((-1.96 * 2**0.5, 1.96 * 2**0.5), abs=0.15)
