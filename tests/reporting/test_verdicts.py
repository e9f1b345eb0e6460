"""What the numbers say in words."""

import pytest

from xclip_module.reporting import verdicts
from xclip_module.reporting.differences import Difference


def result_with(own, prior, bounds):
    keys = ("AUROC", "AUPRC", "mAP@0.5")
    return {
        "macro": dict.fromkeys(keys, own),
        "controls": {"time prior": dict.fromkeys(keys, prior)},
        "minus_time_prior": dict.fromkeys(keys, bounds),
    }


@pytest.mark.parametrize(
    ("own", "bounds", "word", "is_beaten"),
    [
        (0.5, [-0.3, -0.1], "below the time prior", False),
        (0.65, [-0.1, 0.1], "not distinguishable from the time prior", False),
        (0.7, [-0.1, 0.3], "not distinguishable from the time prior", False),
        (0.9, [0.1, 0.3], "above the time prior", True),
        (0.9, None, "above the time prior", True),
        (0.5, None, "below the time prior", False),
    ],
)
def test_the_time_prior_is_compared_in_words(own, bounds, word, is_beaten):
    words = verdicts.against_time_prior(result_with(own, 0.68, bounds))
    assert ("does not beat the time prior" in words[0]) is not is_beaten
    assert sum(word in line for line in words) == 3
    assert all(("no interval" in line) is (bounds is None) for line in words[-3:])


def test_without_training_videos_there_is_no_time_prior_and_the_report_says_so():
    assert "No training videos" in verdicts.against_time_prior({"controls": {}, "macro": {}, "minus_time_prior": {}})[0]


def test_a_gap_that_excludes_zero_is_said_in_words():
    fall = verdicts.of_gap("AUROC", ("val", 0.8), ("test", 0.6), Difference(-0.2, (-0.3, -0.1)))
    assert fall.startswith("AUROC falls from 80.0 % (val) to 60.0 % (test), gap −20.0 [−30.0, −10.0]: more than")
    assert "not distinguishable" in verdicts.of_gap("x", ("val", 0.8), ("test", 0.7), Difference(-0.1, (-0.3, 0.1)))
