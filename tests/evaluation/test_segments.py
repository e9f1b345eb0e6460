"""Segment metrics: against numbers of the reference evaluators, a slow obvious oracle, and hand-worked cases."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_module.evaluation.localisation import localise_pairs, metrics
from xclip_module.evaluation.segments import (
    THRESHOLDS,
    average_precisions,
    boundary_errors,
    clean,
    judge,
    judge_pair,
    match,
    tious,
)
from xclip_module.interface import Moment, Pair, tiou

GOLDEN = Path(__file__).parents[1] / "golden" / "localization"
CASES = sorted(path.stem for path in (GOLDEN / "detection" / "cases").iterdir())
# The whole set, with real annotations that may not be distributed: LOCALISATION_GOLDEN=FOLDER.
REAL = Path(os.environ.get("LOCALISATION_GOLDEN", "/nonexistent"))
DECIMAL = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def case_pairs(case, label):
    """One pair a video of a golden detection case, cleaned as the evaluator's reader does."""
    pairs = []
    for video in case["videos"]:
        rows = [
            [row for row in case[key] if (row["video"], row["label"]) == (video, label)]
            for key in ("ground_truth", "predictions")
        ]
        truth = clean([(row["t_start"], row["t_end"]) for row in rows[0]], unique=True).kept
        predictions = clean([Moment(row["t_start"], row["t_end"], row["score"]) for row in rows[1]], unique=False).kept
        pairs.append(Pair(label, video, tuple(truth), tuple(predictions)))
    return pairs


def ap_of(pairs, thresholds=DECIMAL):
    return average_precisions(judge(pairs, {pair.video: i for i, pair in enumerate(pairs)}, thresholds))[0]


def load_case(name):
    return (json.loads((GOLDEN / "detection" / kind / f"{name}.json").read_text()) for kind in ("cases", "expected"))


# Where the references disagree with each other or a segment has no length, the rule is ours; see the tests below.
OWN_RULE = {
    "duplicate_ground_truth",
    "inverted_prediction",
    "zero_length_both",
    "zero_length_gt",
    "zero_length_prediction",
}


@pytest.mark.parametrize("name", [name for name in CASES if name not in OWN_RULE and "ties" not in name])
def test_detection_ap_equals_the_activitynet_toolkit(name):
    case, expected = load_case(name)
    for label in case["classes"]:
        reference = [float(x) for x in expected["per_class_function"]["decimal"]["activitynet"][label]]
        np.testing.assert_allclose(ap_of(case_pairs(case, label)), reference, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if "ties" in name])
def test_with_tied_scores_ap_is_one_of_the_permutations(name):
    case, expected = load_case(name)
    for label, analysis in expected["tie_analysis_decimal"].items():
        ours = ap_of(case_pairs(case, label))
        assert (ours >= np.array(analysis["min_over_perms"]) - 1e-9).all()
        assert (ours <= np.array(analysis["max_over_perms"]) + 1e-9).all()


@pytest.mark.parametrize("name", ["duplicate_ground_truth", "zero_length_gt"])
def test_repeated_and_empty_true_segments_are_left_out_as_in_opentad(name):
    case, expected = load_case(name)
    reference = expected["full_evaluator"]["decimal"]["opentad"]["ap_class_by_thr"]
    for label, values in zip(case["classes"], reference, strict=True):
        np.testing.assert_allclose(ap_of(case_pairs(case, label)), values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["zero_length_prediction", "zero_length_both", "inverted_prediction"])
def test_predictions_without_length_are_dropped_and_never_count_as_found(name):
    case, _ = load_case(name)
    rest = {**case, "predictions": [row for row in case["predictions"] if row["t_end"] > row["t_start"]]}
    assert len(rest["predictions"]) < len(case["predictions"])
    ours = ap_of(case_pairs(case, "x"))
    np.testing.assert_array_equal(ours, ap_of(case_pairs(rest, "x")))
    assert clean([Moment(5, 5, 1), Moment(9, 3, 1), Moment(0, 1, 1)], unique=False).empty == 2


def test_a_tiou_exactly_on_the_threshold_counts():
    """5 of 10 seconds is 0.5; and 9 of 10 passes 0.9, which np.linspace's 0.8999… would hide and float32 deny."""
    assert ap_of([Pair("q", "v", ((0, 10),), (Moment(0, 5, 1),))], [0.5])[0] == 1.0
    assert ap_of([Pair("q", "v", ((0, 10),), (Moment(0, 9, 1),))], [0.9])[0] == 1.0
    assert all(limit == float(f"{limit:.2f}") for limit in THRESHOLDS)


def test_precision_over_all_videos_is_worked_by_hand():
    """Hits at ranks 1 and 3 of 3 truths: precisions 1 and 2/3, so (1 + 2/3) / 3."""
    pairs = [
        Pair("q", "a", ((0, 10), (20, 30)), (Moment(0, 10, 5),)),
        Pair("q", "b", ((0, 10),), (Moment(50, 60, 4), Moment(0, 10, 3))),
    ]
    assert ap_of(pairs, [0.5])[0] == pytest.approx((1 + 2 / 3) / 3)


def test_a_query_that_happens_nowhere_has_no_ap_and_one_without_answers_has_zero():
    assert math.isnan(ap_of([Pair("q", "v", (), (Moment(0, 5, 1),))], [0.5])[0])
    assert ap_of([Pair("q", "v", ((0, 5),), ())], [0.5])[0] == 0.0


def test_nan_in_a_prediction_is_refused():
    with pytest.raises(ValueError, match="1 predictions hold NaN"):
        judge([Pair("q", "v", ((0, 5),), (Moment(0, 5, math.nan),))], {"v": 0})


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [((0, 4), (4, 8), 0), ((0, 4), (2, 6), 1 / 3), ((1, 2), (0, 4), 0.25), ((5, 6), (0, 1), 0)],
)
def test_tiou_of_hand_worked_pairs(first, second, expected):
    assert tiou(first, second) == pytest.approx(expected)
    assert tious(np.array([first], float), np.array([second], float)) == pytest.approx(expected)


spans = st.tuples(st.integers(0, 20), st.integers(1, 10)).map(lambda p: (float(p[0]), float(p[0] + p[1])))
truths = st.lists(spans, max_size=3, unique=True).map(tuple)
# Scores are distinct, so that nothing depends on how ties are broken.
answers = st.lists(spans, max_size=6)


@st.composite
def instances(draw):
    """Three videos of one query with at least one true segment, and distinct scores over all of them."""
    pairs = [(draw(truths), draw(answers)) for _ in range(3)]
    pairs[0] = (pairs[0][0] or ((0.0, 4.0),), pairs[0][1])
    scores = iter(draw(st.permutations(range(sum(len(found) for _, found in pairs)))))
    return [
        Pair("q", f"v{i}", truth, tuple(Moment(*span, float(next(scores))) for span in found))
        for i, (truth, found) in enumerate(pairs)
    ]


def obvious_ap(pairs, threshold):
    """The ActivityNet rule in plain loops: one list, best free segment, envelope, sum at the hits."""
    ranked = sorted(((m.score, p, m) for p in pairs for m in p.predictions), key=lambda row: -row[0])
    free = {pair.video: sorted(pair.truth) for pair in pairs}
    total = sum(len(pair.truth) for pair in pairs)
    hits, precisions = [], []
    for _, pair, moment in ranked:
        fits = [(tiou(moment, s), s) for s in free[pair.video] if tiou(moment, s) >= threshold]
        hits.append(bool(fits))
        if fits:
            free[pair.video].remove(max(fits)[1])
        precisions.append(sum(hits) / len(hits))
    return sum(max(precisions[i:]) for i, hit in enumerate(hits) if hit) / total


@given(instances(), st.sampled_from([0.3, 0.5, 0.75]))
def test_ap_equals_the_obvious_loops(pairs, threshold):
    assert ap_of(pairs, [threshold])[0] == pytest.approx(obvious_ap(pairs, threshold), abs=1e-12)


@given(instances())
def test_ap_never_rises_with_the_threshold(pairs):
    values = ap_of(pairs, [0.1, 0.3, 0.5, 0.7, 0.9])
    assert (np.diff(values) <= 1e-12).all()


@given(instances(), st.randoms())
def test_neither_input_order_nor_a_rising_change_of_the_scores_matters(pairs, random):
    shuffled = [
        pair._replace(predictions=tuple(random.sample(pair.predictions, len(pair.predictions)))) for pair in pairs
    ]
    warped = [
        pair._replace(predictions=tuple(m._replace(score=math.exp(m.score) - 7) for m in pair.predictions))
        for pair in pairs
    ]
    expected = metrics(localise_pairs(pairs))
    for changed in (shuffled, warped, random.sample(pairs, 3)):
        found = metrics(localise_pairs(changed))
        assert {k: pytest.approx(v, abs=1e-12) for k, v in expected.items()} == found


@given(instances(), st.floats(0.5, 20), st.floats(-5, 50))
def test_shifting_and_scaling_time_changes_nothing(pairs, scale, shift):
    """Powers of two and whole shifts are exact, so that no tIoU crosses a threshold by rounding."""
    scale, shift = 2.0 ** round(math.log2(scale)), float(round(shift))
    moved = [
        pair._replace(
            truth=tuple((a * scale + shift, b * scale + shift) for a, b in pair.truth),
            predictions=tuple(Moment(a * scale + shift, b * scale + shift, s) for a, b, s in pair.predictions),
        )
        for pair in pairs
    ]
    np.testing.assert_allclose(ap_of(moved), ap_of(pairs), atol=1e-12)


@given(instances(), st.sampled_from([0, 1, 2]))
def test_one_more_lowest_false_alarm_never_helps(pairs, place):
    worse = list(pairs)
    worse[place] = pairs[place]._replace(predictions=(*pairs[place].predictions, Moment(900.0, 901.0, -1.0)))
    assert (ap_of(worse) <= ap_of(pairs) + 1e-12).all()


@given(st.lists(truths, min_size=1, max_size=3).filter(any))
def test_perfect_answers_score_one_everywhere(segments):
    pairs = [Pair("q", f"v{i}", own, tuple(Moment(*span, 1.0) for span in own)) for i, own in enumerate(segments)]
    found = metrics(localise_pairs(pairs))
    assert {found[key] for key in found if "@" in key or key == "mIoU"} == {1.0}


@given(instances())
def test_with_one_video_both_maps_are_the_same(pairs):
    """Up to ten predictions: QVHighlights looks at no more."""
    found = metrics(localise_pairs(pairs[:1]))
    for limit in ("0.3", "0.5", "0.7", "0.5:0.95"):
        assert found[f"det_mAP@{limit}"] == pytest.approx(found[f"pair_mAP@{limit}"], abs=1e-12)


@given(instances(), st.lists(st.integers(0, 2), min_size=3, max_size=3))
def test_a_video_drawn_twice_counts_as_two_videos(pairs, drawn):
    """The bootstrap's weights beside the plain metric of a data set in which videos are really repeated."""
    copies = [
        pair._replace(video=f"{pair.video}{n}") for n, index in enumerate(sorted(drawn)) for pair in [pairs[index]]
    ]
    weights = np.bincount(drawn, minlength=3)[None].astype(float)
    ours = average_precisions(judge(pairs, {f"v{i}": i for i in range(3)}, DECIMAL), weights)[0]
    np.testing.assert_allclose(ours, ap_of(copies), atol=1e-12)


def test_of_segments_that_fit_equally_the_later_is_taken_as_the_references_do():
    overlaps = tious(np.array([[2.0, 12], [3, 13]]), np.array([[0.0, 10], [4, 14]]))
    assert match(overlaps, [0.5]).tolist() == [[True, True]]
    assert match(overlaps[:1], [0.5]).tolist() == [[True]]
    # After [2, 12] took [4, 14], only [0, 10] is left, which fits [3, 13] with 7/13.
    assert match(overlaps, [0.6]).tolist() == [[True, False]]


def test_a_pair_counts_ten_predictions_and_the_first_five():
    late = [Moment(50 + i, 51 + i, 100.0 - i) for i in range(10)]
    hit = Moment(0, 10, 0.0)
    assert judge_pair([*late[:9], hit], [(0, 10)], [0.5]).ap[0] == pytest.approx(0.1)
    assert judge_pair([*late, hit], [(0, 10)], [0.5]).ap[0] == 0.0
    assert judge_pair([*late[:4], hit], [(0, 10)], [0.5]).top5 == 1.0
    assert judge_pair([*late[:5], hit], [(0, 10)], [0.5]).top5 == 0.0


def read_real(name):
    if not (REAL / name).exists():
        pytest.skip("needs LOCALISATION_GOLDEN")
    return np.load(REAL / name / "inputs.npz"), json.loads((REAL / name / "expected.json").read_text())


def test_the_real_qvhighlights_sample_scores_as_its_published_metrics_file():
    inputs, expected = read_real("moment_retrieval/real_qvhighlights_NONCOMMERCIAL")
    offset, pairs = inputs["gt_windows_offset"], []
    for i, qid in enumerate(inputs["qid"]):
        truth = clean([tuple(w) for w in inputs["gt_windows"][offset[i] : offset[i + 1]]], unique=True).kept
        moments = tuple(Moment(*w) for w in inputs["pred_windows"][i] if not np.isnan(w[0]))
        pairs.append(Pair(str(qid), f"v{i}", tuple(truth), moments))
    found = metrics(localise_pairs(pairs))
    published = expected["official_rounded"]["full"]
    for limit in map("{:g}".format, DECIMAL):
        assert f"{100 * found[f'pair_mAP@{limit}']:.2f}" == f"{published['MR-mAP'][limit]:.2f}"
        assert f"{100 * found[f'R1@{limit}']:.2f}" == f"{published['MR-R1'][limit]:.2f}"
    assert f"{100 * found['pair_mAP@0.5:0.95']:.2f}" == f"{published['MR-mAP']['average']:.2f}"


def distinct(segments):
    """OpenTAD's: without the empty ones and those within a millisecond of an earlier one."""
    kept: list = []
    for segment in clean(segments, unique=False).kept:
        if not any(np.abs(np.subtract(segment, other)).max() <= 1e-3 for other in kept):
            kept.append(segment)
    return kept


def test_real_activitynet_predictions_score_as_opentad_says():
    """Which leaves out the empty and the repeated true segments too; the toolkit itself, with them, says .4033370."""
    inputs, expected = read_real("detection/real_activitynet")
    rows: dict = {}
    for video, label, start, end in inputs["ground_truth"]:
        rows.setdefault((label, video), ([], []))[0].append((start, end))
    for video, label, start, end, score in inputs["predictions_jittered"]:
        rows.setdefault((label, video), ([], []))[1].append(Moment(start, end, score))
    pairs = [
        Pair(str(label), str(video), tuple(distinct(truth)), tuple(clean(found, unique=False).kept))
        for (label, video), (truth, found) in rows.items()
    ]
    ours = metrics(localise_pairs(pairs))["det_mAP@0.5:0.95"]
    assert ours == pytest.approx(expected["results"]["jittered"]["opentad"]["average_mAP"], abs=1e-6)


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
