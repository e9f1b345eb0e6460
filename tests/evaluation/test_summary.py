"""A split's table, worked by hand and beside simpler ways to the same numbers."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from xclip_module.evaluation.bootstrap import draw_weights
from xclip_module.evaluation.summary import summarise
from xclip_module.interface import Answer, Moment

TIMES = np.array([0.5, 1.5, 2.5, 3.5])
RISING, FALLING = np.array([0.0, 1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0, 0.0])
TRUTH = {"a": {"late": [(2.0, 4.0)], "never": []}, "b": {"late": [(0.0, 1.0)]}}
ANSWERS = [
    Answer("a", TIMES, 4.0, np.stack([RISING, FALLING]), {"late": [Moment(2, 4, 1.0)], "never": [Moment(0, 1, 9.0)]}),
    Answer("b", TIMES, 4.0, np.stack([RISING, RISING]), {"late": [Moment(3, 4, 2.0)], "never": []}),
]


def test_the_summary_of_two_videos_is_worked_by_hand():
    found = summarise(ANSWERS, TRUTH, ["late", "never"])
    late = found.queries["late"]
    assert (late["AUROC"], late["pairs"]) == (0.5, 2)  # 1 in a, 0 in b
    assert late["AUPRC"] == pytest.approx((1 + 1 / 4) / 2)
    assert late["prevalence"] == pytest.approx((0.5 + 0.25) / 2)
    assert late["lift"] == pytest.approx(late["AUPRC"] / late["prevalence"])
    assert late["mAP@0.5"] == late["det_mAP@0.5"] == pytest.approx(1 / 4)  # a miss first, then one of two
    assert late["R1@0.5"] == 0.5
    never = found.queries["never"]
    assert {never[key] for key in ("AUROC", "AUPRC", "prevalence", "lift", "mAP@0.5", "mIoU")} == {None}
    assert (never["pairs"], never["absent"]) == (0, 1)
    assert {key: found.macro[key] for key in ("AUROC", "AUPRC", "mAP@0.5", "pairs")} == {
        key: late[key] for key in ("AUROC", "AUPRC", "mAP@0.5", "pairs")
    }
    assert found.macro["presence_AUROC"] == 0.0  # 1 and 2 where present, 9 where absent
    assert found.macro["presence_AUROC_samples"] == 0.5  # every curve reaches 3
    assert found.videos["b"]["AUROC"] == 0.0
    assert found.videos["a"]["mIoU"] == 1.0


def test_pooled_numbers_put_the_samples_of_all_videos_together():
    found = summarise(ANSWERS, TRUTH, ["late"]).queries["late"]
    labels = np.array([0, 0, 1, 1, 1, 0, 0, 0])
    assert found["AUROC_pooled"] == pytest.approx(roc_auc_score(labels, np.tile(RISING, 2)))
    assert found["AUPRC_pooled"] == pytest.approx(average_precision_score(labels, np.tile(RISING, 2)))
    assert found["prevalence_pooled"] == 3 / 8


def test_presence_by_samples_asks_for_the_largest_score_of_the_video():
    weak = [ANSWERS[0]._replace(ranking=np.stack([RISING, FALLING / 10])), ANSWERS[1]]
    assert summarise(weak, TRUTH, ["late", "never"]).macro["presence_AUROC_samples"] == 1.0


def test_unannotated_pairs_take_no_part():
    found = summarise(ANSWERS[:1], {}, ["late", "never"])
    assert found.macro["pairs"] == 0
    assert not any(isinstance(value, float) and math.isnan(value) for value in found.macro.values())


def random_split(videos=6, seed=0):
    rng = np.random.default_rng(seed)
    answers, truth = [], {}
    for index in range(videos):
        name, times = f"v{index}", np.arange(30) + 0.5
        starts = rng.integers(0, 20, 2)
        truth[name] = {
            query: [] if rng.random() < 0.2 else [(float(s), float(s + 6))]
            for query, s in zip("xy", starts, strict=True)
        }
        moments = {
            query: [Moment(float(s), float(s + 5), float(rng.normal())) for s in rng.integers(0, 24, 4)]
            for query in "xy"
        }
        answers.append(Answer(name, times, 30.0, rng.normal(size=(2, 30)), moments))
    return answers, truth


def test_replicates_are_the_macro_of_really_repeated_videos():
    answers, truth = random_split()
    weights = draw_weights(6, 5, seed=3)
    found = summarise(answers, truth, ["x", "y"], weights)
    for draw in range(5):
        copies, known = [], {}
        for index, count in enumerate(weights[draw].astype(int)):
            for copy in range(count):
                name = f"v{index}-{copy}"
                copies.append(answers[index]._replace(video=name))
                known[name] = truth[f"v{index}"]
        expected = summarise(copies, known, ["x", "y"]).macro
        for key in ("AUROC", "AUPRC", "prevalence", "mAP@0.5", "pair_mAP@0.3", "R5@0.5", "mIoU"):
            assert found.replicates[key][draw] == pytest.approx(expected[key]), key
