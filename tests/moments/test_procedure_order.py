"""The decoded order beside every order that is allowed, and what it does to the moments of a phase."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_module.interface import Moment
from xclip_module.moments.procedure_order import decode_order, first_in_order


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
    curve, edges = np.array([0.0, 0, 1, 1, 0, 0]), np.arange(7) * 2.0
    moments = [Moment(4, 10, 5.0), Moment(0, 2, 1.0)]
    first = first_in_order(curve, moments, (2, 4), edges, nms_tiou=0.3)
    assert [m[:2] for m in first] == [(4, 8), (0, 2)]
    assert first[0].score > 1000
    assert first_in_order(curve, moments, None, edges, nms_tiou=0.3) == moments
