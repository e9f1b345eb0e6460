"""Draws of videos and percentiles, beside a golden bootstrap."""

import json
from pathlib import Path

import numpy as np
import pytest

from xclip_module.evaluation.bootstrap import draw_weights, intervals, paired_difference, weights_of

GOLDEN = Path(__file__).parents[1] / "golden" / "localization" / "frame_level"


def test_the_same_seed_draws_the_same_videos_and_another_seed_others():
    np.testing.assert_array_equal(draw_weights(8, 100, 1), draw_weights(8, 100, 1))
    assert (draw_weights(8, 100, 1) != draw_weights(8, 100, 2)).any()


def test_the_interval_is_that_of_the_golden_bootstrap():
    """Given drawn indices and per-video values, percentiles 2.5 and 97.5 of the resampled means."""
    expected = json.loads((GOLDEN / "ranking_expected.json").read_text())
    indices = np.load(GOLDEN / "bootstrap_indices.npz")
    chosen = indices[indices.files[0]]
    per_video = np.nanmean(np.array(expected["per_video_per_query"]["ap"], float), axis=1)
    replicates = weights_of(chosen) @ per_video / chosen.shape[1]
    golden = expected["bootstrap_over_videos"]
    np.testing.assert_allclose(replicates, golden["replicates"], atol=1e-9)
    assert intervals({"AP": replicates})["AP"] == pytest.approx(golden["percentile_2.5_97.5_linear"], abs=1e-9)


def test_a_paired_difference_is_draw_by_draw():
    first = np.array([0.1, 0.5, np.nan, 0.3])
    assert paired_difference(first, first + 0.2) == pytest.approx([0.2, 0.2])
    assert paired_difference(np.array([np.nan]), np.array([1.0])) is None
