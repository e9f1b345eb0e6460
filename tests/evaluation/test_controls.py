"""The controls worked by hand, and their known strength on the real labels of Cholec80."""

import os
from pathlib import Path

import numpy as np
import pytest

from xclip_module.config import EvalConfig
from xclip_module.datasets.cholec80.corpus import PHASES, read_labels
from xclip_module.datasets.cholec80.layout import find_layout, video_id
from xclip_module.evaluation import controls
from xclip_module.evaluation.frames import labels_at
from xclip_module.evaluation.phases import phase_metrics
from xclip_module.evaluation.summary import summarise
from xclip_module.interface import Answer, Curve, Moment, Question
from xclip_module.moments.answers import answer


def test_the_time_prior_is_the_share_of_training_videos_at_that_relative_time():
    train = [([(0.0, 50.0)], 100.0), ([(50.0, 100.0)], 200.0), ([], 10.0)]
    np.testing.assert_allclose(controls.time_prior(train, np.array([1.0, 30.0, 75.0]), 100.0), [1 / 3, 2 / 3, 0])


def test_the_train_mean_leaves_out_videos_without_the_query_and_spans_repeated_segments():
    train = [([(10.0, 20.0), (40.0, 50.0)], 100.0), ([], 77.0), ([(20.0, 60.0)], 200.0)]
    assert controls.train_mean(train, 100.0) == [Moment(10.0, 40.0, 1.0)]
    assert controls.train_mean([([], 10.0)], 100.0) == []


def test_random_scores_depend_on_seed_video_and_query_alone():
    both = controls.random_scores(["a", "b"], "v", 50, 1)
    np.testing.assert_array_equal(both[1:], controls.random_scores(["b"], "v", 50, 1))
    assert (both[1] != both[0]).all()
    assert (both != controls.random_scores(["a", "b"], "v", 50, 2)).all()
    assert (both != controls.random_scores(["a", "b"], "w", 50, 1)).all()


def test_the_oracle_is_found_again_by_the_segmenter():
    times = np.arange(0.5, 100)
    truth = {"x": [(20.0, 45.0)]}
    curve = Curve("v", times, controls.oracle_scores(["x"], truth, times), 100.0)
    found = answer(curve, [Question("x", "phase")], track="similarity-only", stride=1.0, section=EvalConfig())
    assert found.moments["x"][0][:2] == (20.0, 45.0)


@pytest.fixture(scope="module")
def cholec80():
    """Video -> (segments, seconds) of a real copy's labels: CHOLEC80_LABELS=FOLDER, which holds phase_annotations/."""
    root = os.environ.get("CHOLEC80_LABELS")
    if not root:
        pytest.skip("needs CHOLEC80_LABELS")
    layout = find_layout(Path(root))
    labels = {number: read_labels(layout, number) for number in range(1, 81)}
    return {number: (found.segments, found.seconds) for number, found in labels.items()}


def control(cholec80, make, train=range(1, 41), test=range(41, 81)):
    """The macro of a control at 1 sample a second: make(known training truth, times, duration) -> ranking, moments."""
    known = {name: [(cholec80[n][0][name], cholec80[n][1]) for n in train] for name in PHASES}
    answers = []
    for number in test:
        seconds = cholec80[number][1]
        times = np.arange(int(seconds)) + 0.5
        answers.append(Answer(video_id(number), times, seconds, *make(known, times, seconds)))
    truth = {video_id(number): cholec80[number][0] for number in test}
    return summarise(answers, truth, PHASES).macro, answers, truth


def prior(known, times, seconds):
    return np.stack([controls.time_prior(known[name], times, seconds) for name in PHASES]), {}


def mean_segment(known, times, seconds):
    moments = {name: controls.train_mean(known[name], seconds) for name in PHASES}
    return np.stack([controls.covered(found, times) for found in moments.values()]), moments


def whole(known, times, seconds):
    moments = {name: [Moment(0.0, seconds, 1.0)] for name in PHASES}
    return np.zeros((len(PHASES), len(times))), moments


def test_the_blind_clock_of_real_cholec80_has_its_known_strength(cholec80):
    macro, answers, truth = control(cholec80, prior)
    assert macro["AUROC"] == pytest.approx(0.939, abs=0.001)
    assert macro["AUPRC"] == pytest.approx(0.724, abs=0.001)
    assert macro["prevalence"] == pytest.approx(0.1455, abs=0.0005)
    labels = [np.stack([labels_at(one.times, truth[one.video][name]) for name in PHASES]) for one in answers]
    found = phase_metrics(
        [known.argmax(0)[known.any(0)] for known in labels],
        [one.ranking.argmax(0)[known.any(0)] for one, known in zip(answers, labels, strict=True)],
        phases=7,
    )
    assert found["phase/accuracy"] == pytest.approx(0.725, abs=0.001)
    assert found["phase/F1"] == pytest.approx(0.504, abs=0.001)


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        ((1, 40), (41, 80), {"mIoU": 0.456, "R1@0.3": 0.6436, "R1@0.5": 0.4727, "R1@0.7": 0.3091}),
        ((1, 40), (49, 80), {"mIoU": 0.4542, "R1@0.3": 0.6484, "R1@0.5": 0.4612, "R1@0.7": 0.3059}),
        ((1, 32), (41, 80), {"mIoU": 0.4506, "R1@0.3": 0.6436, "R1@0.5": 0.48, "R1@0.7": 0.3091}),
        ((1, 40), (41, 48), {"mIoU": 0.4629, "R1@0.3": 0.625, "R1@0.5": 0.5179, "R1@0.7": 0.3214}),
    ],
)
def test_the_train_mean_segment_of_real_cholec80_is_the_known_one(cholec80, train, test, expected):
    splits = (range(train[0], train[1] + 1), range(test[0], test[1] + 1))
    macro, _, _ = control(cholec80, mean_segment, *splits)
    assert {key: pytest.approx(macro[key], abs=1e-4) for key in expected} == expected
    if (train, test) == ((1, 40), (41, 80)):
        assert macro["det_mAP@0.5"] == pytest.approx(0.341, abs=0.0006)
        assert macro["pair_mAP@0.5"] == pytest.approx(0.473, abs=0.0006)


def test_the_whole_video_of_real_cholec80_is_the_known_floor(cholec80):
    macro, _, _ = control(cholec80, whole)
    assert macro["mIoU"] == pytest.approx(0.1455, abs=1e-4)
    assert macro["R1@0.5"] == pytest.approx(0.0327, abs=1e-4)
    assert macro["det_mAP@0.5"] == pytest.approx(0.006, abs=0.0006)
    assert (macro["AUROC"], macro["tied_share"]) == (0.5, 1.0)
