"""Where a query holds many times: Otsu's threshold, hysteresis and gaps, worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_module.moments.proposals import find_components, otsu


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
