"""Boundary errors worked by hand."""

import pytest

from xclip_module.evaluation.segments import boundary_errors
from xclip_module.interface import Moment, Pair


def test_boundary_errors_are_signed_and_taken_at_the_best_overlap():
    truth = ((10.0, 20.0), (40.0, 60.0))
    pairs = [
        Pair("clip", "a", truth, (Moment(35.0, 70.0, 2.0), Moment(10.0, 20.0, 1.0))),
        Pair("clip", "b", truth, (Moment(0.0, 10.0, 1.0),)),  # touches, does not overlap
        Pair("clip", "c", (), (Moment(0.0, 10.0, 1.0),)),
        Pair("clip", "d", truth, ()),
        Pair("clip", "e", truth, (Moment(18.0, 50.0, 1.0),)),  # 2 of 40 s against 10 of 42 s
    ]
    found = [(one.video, one.start, one.end) for one in boundary_errors(pairs)]
    assert found == [("a", -5.0, 10.0), ("e", -22.0, -10.0)]
    assert boundary_errors(pairs)[0].tiou == pytest.approx(20 / 35)
