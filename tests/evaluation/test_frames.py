"""Ranking scores against golden values (scikit-learn, ivtmetrics), hand-worked cases and invariants."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import average_precision_score, roc_auc_score

from xclip_module.evaluation.frames import (
    frame_pooled_map,
    pooled_ranking,
    precision_recall_points,
    rank_pair,
    roc_points,
    sample_ap,
    video_first_map,
)

FOLDER = Path(__file__).parents[1] / "golden" / "localization" / "frame_level"
EXPECTED = json.loads((FOLDER / "ranking_expected.json").read_text())
TOOLS = slice(7, 14)
EXACT = {"rtol": 0, "atol": 1e-6}


def by_video(name):
    """One [Q, M] array per golden video."""
    with np.load(FOLDER / "ranking_inputs.npz") as stored:
        return [stored[name][stored["video"] == video].T for video in range(EXPECTED["n_videos"])]


SCORES, LABELS = by_video("scores"), [part.astype(bool) for part in by_video("labels")]


def of_query(row, videos=None):
    """Scores and labels of one golden query, one [M] per video."""
    chosen = range(len(SCORES)) if videos is None else videos
    return [SCORES[video][row] for video in chosen], [LABELS[video][row] for video in chosen]


def numbers(golden):
    """Golden lists write NaN as a string."""
    return np.array(golden, float)


def field(rankings, name):
    return np.array([np.nan if ranking is None else getattr(ranking, name) for ranking in rankings])


def every_ap():
    """[video, query] AP, NaN where undefined."""
    return np.array(
        [[sample_ap(*pair) for pair in zip(*video, strict=True)] for video in zip(SCORES, LABELS, strict=True)], float
    )


def random_curve(seed, count=60):
    generator = np.random.default_rng(seed)
    # Rounded, so that ties occur.
    return generator.normal(size=count).round(1), np.arange(count) % 4 == 0


@pytest.mark.parametrize(("name", "golden"), [("auroc", "auroc"), ("auprc", "ap"), ("prevalence", "prevalence")])
def test_every_pair_equals_golden_where_both_kinds_of_samples_occur(name, golden):
    ours = field(
        [rank_pair(s, g) for v, w in zip(SCORES, LABELS, strict=True) for s, g in zip(v, w, strict=True)], name
    )
    expected = numbers(EXPECTED["per_video_per_query"][golden]).ravel()
    defined = ~np.isnan(numbers(EXPECTED["per_video_per_query"]["auroc"]).ravel())
    np.testing.assert_array_equal(~np.isnan(ours), defined)
    np.testing.assert_allclose(ours[defined], expected[defined], **EXACT)


@pytest.mark.parametrize(("name", "golden"), [("auroc", "auroc"), ("auprc", "ap"), ("prevalence", "prevalence")])
def test_queries_pooled_over_videos_equal_golden_and_the_query_present_nowhere_is_none(name, golden):
    rankings = [pooled_ranking(*of_query(row)) for row in range(EXPECTED["n_queries"])]
    assert rankings[13] is None
    np.testing.assert_allclose(field(rankings[:13], name), numbers(EXPECTED["pooled_per_query"][golden])[:13], **EXACT)


@pytest.mark.parametrize(("name", "golden"), [("auroc", "auroc"), ("auprc", "ap")])
def test_pooling_after_standardising_every_video_equals_golden(name, golden):
    for row in range(13):
        scores, labels = of_query(row)
        standard = [(part - part.mean()) / (part.std() or 1) for part in scores]
        expected = EXPECTED["pooled_per_query_after_per_video_zscore"][golden][row]
        assert getattr(pooled_ranking(standard, labels), name) == pytest.approx(expected, abs=1e-6)


def test_pooling_all_queries_too_equals_golden_micro():
    pooled = pooled_ranking([part.ravel() for part in SCORES], [part.ravel() for part in LABELS])
    expected = EXPECTED["aggregates"]["micro_all_frames_all_queries"]
    assert pooled[:2] == pytest.approx((expected["auroc"], expected["ap"]), abs=1e-6)


def test_single_curve_ap_equals_golden_also_where_all_samples_are_positive():
    ours = every_ap()
    np.testing.assert_allclose(ours, numbers(EXPECTED["per_video_per_query"]["ap"]), **EXACT)
    aggregate = EXPECTED["aggregates"]["mean_over_all_defined_pairs"]
    assert np.nanmean(ours) == pytest.approx(aggregate["ap"], abs=1e-6)
    assert (~np.isnan(ours)).sum() == aggregate["n_ap"]


def test_frame_pooled_map_is_golden_and_leaves_the_tool_present_nowhere_out():
    ours = frame_pooled_map([part[TOOLS] for part in SCORES], [part[TOOLS] for part in LABELS])
    expected = numbers(EXPECTED["pooled_per_query"]["ap"][TOOLS])
    assert ours.per_query[:6] == pytest.approx(expected[:6], abs=1e-6)
    assert ours.per_query[6] is None
    assert ours.mean == pytest.approx(expected[:6].mean(), abs=1e-6)


def test_pooled_macro_over_all_queries_is_golden():
    expected = EXPECTED["aggregates"]["macro_over_queries_of_pooled"]["ap"]
    assert frame_pooled_map(SCORES, LABELS).mean == pytest.approx(expected, abs=1e-6)


def test_video_first_map_is_golden_and_not_lowered_by_videos_without_the_tool():
    ours = video_first_map([part[TOOLS] for part in SCORES], [part[TOOLS] for part in LABELS])
    expected = EXPECTED["video_wise_AP_nan_aware_tools"]
    assert ours.per_query[:6] == pytest.approx(expected["AP"][:6], abs=1e-6)
    assert ours.per_query[6] is None
    assert ours.mean == pytest.approx(expected["mAP"], abs=1e-6)
    assert ours.mean > EXPECTED["ivtmetrics_video_AP_with_this_sklearn"]["mAP"] + 0.1


def test_video_first_map_over_all_queries_is_golden_query_first_mean():
    expected = EXPECTED["aggregates"]["query_first_then_mean_over_queries"]["ap"]
    assert video_first_map(SCORES, LABELS).mean == pytest.approx(expected, abs=1e-6)


def test_the_two_maps_differ_where_scores_are_not_comparable_between_videos():
    """Perfect within either video; pooled, the positive of video 1 stands third: AP (1 + 2/3) / 2."""
    scores, labels = [np.array([[9.0, 5.0]]), np.array([[4.0, 3.0]])], [np.array([[True, False]])] * 2
    assert video_first_map(scores, labels) == (1.0, (1.0,))
    assert frame_pooled_map(scores, labels).mean == pytest.approx(5 / 6)


def test_a_map_without_any_positive_is_none():
    nothing = [np.array([[0.1, 0.2]])], [np.array([[False, False]])]
    assert frame_pooled_map(*nothing) == video_first_map(*nothing) == (None, (None,))


def test_pooling_weighs_videos_by_their_samples_and_is_worked_by_hand():
    """Order - + - + by rising score over both videos: AUROC 3/4, AP (1 + 2/3) / 2."""
    pooled = pooled_ranking([np.array([1.0, 2.0]), np.array([3.0, 4.0])], [np.array([False, True])] * 2)
    assert pooled == pytest.approx((0.75, 5 / 6, 0.5))
    assert pooled.auprc / pooled.prevalence == pytest.approx(5 / 3)


def test_equal_scores_count_as_one_threshold_not_in_their_order():
    """A walk through the ties would give AP 1 or 1/2, depending on the order."""
    assert rank_pair(np.ones(4), np.array([True, False, False, False])) == (0.5, 0.25, 0.25)


@pytest.mark.parametrize("seed", range(5))
def test_auroc_of_the_negated_curve_is_one_minus_auroc(seed):
    scores, labels = random_curve(seed)
    assert rank_pair(-scores, labels).auroc == pytest.approx(1 - rank_pair(scores, labels).auroc)


@pytest.mark.parametrize("seed", range(5))
def test_ranking_ignores_rising_changes_of_the_scores_and_the_order_of_videos(seed):
    scores, labels = random_curve(seed)
    expected = rank_pair(scores, labels)
    assert rank_pair(np.exp(scores), labels) == pytest.approx(expected)
    parts, truths = [scores[20:], scores[:20]], [labels[20:], labels[:20]]
    assert pooled_ranking(parts, truths) == pytest.approx(expected)


def test_average_precision_of_constant_scores_is_the_prevalence():
    ranking = rank_pair(np.zeros(5), np.array([True, False, False, True, False]))
    assert ranking.auprc / ranking.prevalence == pytest.approx(1)


def test_precision_recall_points_are_golden():
    points, expected = precision_recall_points(*of_query(9)), EXPECTED["pr_curve_query9_pooled"]
    for ours, name in ((points.y, "precision"), (points.x, "recall"), (points.thresholds, "thresholds")):
        np.testing.assert_allclose(ours, numbers(expected[name]), **EXACT)


def test_best_f1_of_the_precision_recall_points_is_golden():
    for row in range(13):
        points = precision_recall_points(*of_query(row))
        f1 = 2 * points.x * points.y / np.maximum(points.x + points.y, 1e-12)
        best = f1.argmax()
        ours = [f1[best], points.thresholds[best], points.y[best], points.x[best]]
        np.testing.assert_allclose(ours, EXPECTED["best_f1_per_query_pooled"]["values"][row], **EXACT)


@pytest.mark.parametrize("row", range(13))
def test_areas_below_the_drawn_curves_are_the_reported_numbers(row):
    pooled = pooled_ranking(*of_query(row))
    roc, recalled = roc_points(*of_query(row)), precision_recall_points(*of_query(row))
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(pooled.auroc)
    assert -np.sum(np.diff(recalled.x) * recalled.y[:-1]) == pytest.approx(pooled.auprc)


def test_roc_points_are_worked_by_hand():
    """Positive, negative, positive, negative by falling score."""
    points = roc_points([np.array([4.0, 3.0, 2.0, 1.0])], [np.array([True, False, True, False])])
    np.testing.assert_array_equal(points.x, [0, 0, 0.5, 0.5, 1])
    np.testing.assert_array_equal(points.y, [0, 0.5, 0.5, 1, 1])
    np.testing.assert_array_equal(points.thresholds, [np.inf, 4, 3, 2, 1])


@pytest.mark.parametrize("points", [precision_recall_points, roc_points])
@pytest.mark.parametrize("label", [True, False])
def test_there_is_no_curve_to_draw_with_one_kind_of_samples(points, label):
    assert points([np.array([0.1, 0.2])], [np.array([label, label])]) is None


def test_resampled_videos_pool_to_the_golden_bootstrap_replicates():
    with np.load(FOLDER / "bootstrap_indices.npz") as stored:
        draws = stored["idx"]
    expected = EXPECTED["bootstrap_over_videos"]
    pooled = [pooled_ranking(*of_query(9, draw)).auprc for draw in draws[:50]]
    np.testing.assert_allclose(pooled, expected["pooled_ap_query9_first50"], **EXACT)
    per_video = np.nanmean(every_ap(), axis=1)
    np.testing.assert_allclose(per_video[draws].mean(axis=1), expected["replicates"], **EXACT)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("labels", [[True, False, True], [False, False, False], [True, True, True]])
@pytest.mark.parametrize("measure", [rank_pair, sample_ap])
def test_a_score_that_is_no_number_raises_also_where_the_result_would_be_undefined(measure, labels, bad):
    with pytest.raises(ValueError, match="not finite: 1 of 3"):
        measure(np.array([0.1, bad, 0.3]), np.array(labels))


@pytest.mark.parametrize("measure", [pooled_ranking, precision_recall_points, roc_points])
def test_a_score_that_is_no_number_names_its_video(measure):
    scores = [np.array([0.1, 0.2]), np.array([np.nan, 0.3])]
    with pytest.raises(ValueError, match="video 1: 1 of 2"):
        measure(scores, [np.array([True, False])] * 2)


@pytest.mark.parametrize("measure", [frame_pooled_map, video_first_map])
def test_a_map_refuses_scores_that_are_no_numbers_and_names_the_video(measure):
    scores = [np.array([[0.1, 0.2]]), np.array([[np.nan, 0.3]])]
    with pytest.raises(ValueError, match="video 1: 1 of 2"):
        measure(scores, [np.array([[True, False]])] * 2)


def test_fewer_labels_than_scores_are_refused_with_both_shapes():
    with pytest.raises(ValueError, match=r"\(3,\).*\(2,\).*video 0"):
        pooled_ranking([np.zeros(3)], [np.zeros(2, bool)])


def test_missing_videos_are_refused():
    with pytest.raises(ValueError, match="2 videos, labels of 1"):
        pooled_ranking([np.zeros(3)] * 2, [np.zeros(3, bool)])
    with pytest.raises(ValueError, match="0 videos"):
        pooled_ranking([], [])


def test_a_matrix_of_queries_is_not_taken_for_one_query():
    with pytest.raises(ValueError, match="1 dimension"):
        pooled_ranking(SCORES, LABELS)
    with pytest.raises(ValueError, match="2 dimension"):
        frame_pooled_map(*of_query(9))


@pytest.mark.parametrize("label", [True, False])
def test_scikit_learn_is_never_asked_about_one_kind_of_samples(label, monkeypatch):
    """Its answer changed between versions: an error, then NaN, for AUROC; NaN, -0.0, then 0.0 for AP."""

    def refuse(labels, scores):
        raise AssertionError("asked")

    monkeypatch.setattr("sklearn.metrics.roc_auc_score", refuse)
    monkeypatch.setattr("sklearn.metrics.average_precision_score", refuse)
    assert rank_pair(np.array([0.1, 0.2]), np.array([label, label])) is None
    assert sample_ap(np.array([0.1, 0.2]), np.array([False, False])) is None


def test_scikit_learn_behaves_as_this_module_relies_on():
    """A version guard: what the golden values were made with, and what the checks above protect from."""
    golden = {name: float(value) for name, value in EXPECTED["raw_sklearn_behaviour"].items()}
    scores = np.array([0.1, 0.4, 0.3, 0.2, 0.5])
    with pytest.warns(UndefinedMetricWarning):
        single_class = roc_auc_score(np.zeros(5), scores)
    with pytest.warns(UserWarning, match="No positive"):
        no_positive = average_precision_score(np.zeros(5), scores)
    found = {
        "roc_auc_single_class": single_class,
        "average_precision_no_positive": no_positive,
        "average_precision_all_positive": average_precision_score(np.ones(5), scores),
        "average_precision_constant_scores": average_precision_score([1, 0, 0, 1, 0], np.zeros(5)),
    }
    assert found == pytest.approx(golden, nan_ok=True)
