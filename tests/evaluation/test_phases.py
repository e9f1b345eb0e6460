"""Phase recognition scores against golden values (scikit-learn, a port of the M2CAI script) and hand-worked cases."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from xclip_module.evaluation.phases import over_phases, over_videos, phase_metrics, relaxed_scores, strict_scores

FOLDER = Path(__file__).parents[1] / "golden" / "localization" / "phase"
EXPECTED = json.loads((FOLDER / "phase_expected.json").read_text())
CONVENTIONS = {"A": "exclude_if_absent_in_gt", "B": "exclude_only_if_absent_in_gt_and_pred"}
RELAXED = {False: "m2cai_relaxed_fixed", True: "m2cai_relaxed_as_published"}
METRICS = ["precision", "recall", "jaccard", "F1"]
EXACT = {"rtol": 0, "atol": 1e-6}
P = 7


def by_video(name):
    with np.load(FOLDER / "phase_inputs.npz") as stored:
        return np.split(stored[name], stored["offset"][1:-1])


TRUTH, PREDICTED = by_video("gt"), by_video("pred")


def numbers(golden):
    """Golden lists write NaN as a string."""
    return np.array(golden, float)


def runs(*pairs):
    """Labels of one video from (phase, samples) pairs."""
    return np.concatenate([np.full(count, phase) for phase, count in pairs])


def relaxed(truth, predicted, **options):
    return relaxed_scores([truth], [predicted], phases=P, **options)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("metric", METRICS)
def test_strict_cells_and_both_averages_are_golden(metric, convention):
    cells = getattr(strict_scores(TRUTH, PREDICTED, phases=P, convention=convention), metric)
    expected = EXPECTED["strict"][CONVENTIONS[convention]][metric.lower()]
    np.testing.assert_allclose(cells, numbers(expected["matrix_video_phase"]), **EXACT)
    np.testing.assert_allclose(over_videos(cells), numbers(expected["per_phase"]), **EXACT)
    np.testing.assert_allclose(over_phases(cells), numbers(expected["per_video"]), **EXACT)


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("metric", METRICS)
def test_the_flat_table_holds_the_golden_means_and_spreads(metric, convention):
    rows = phase_metrics(TRUTH, PREDICTED, phases=P, convention=convention)
    expected = EXPECTED["strict"][CONVENTIONS[convention]][metric.lower()]
    ours = [rows[f"phase/{metric}"], rows[f"phase/{metric}_sd_phases"]]
    ours += [rows[f"phase/per_video/{metric}"], rows[f"phase/per_video/{metric}_sd"]]
    names = ["mean_over_phases", "std_over_phases_ddof1", "mean_over_videos", "std_over_videos_ddof1"]
    assert ours == pytest.approx([expected[name] for name in names], abs=1e-6)


def test_the_flat_table_follows_convention_b_unless_told_otherwise():
    assert phase_metrics(TRUTH, PREDICTED, phases=P) == phase_metrics(TRUTH, PREDICTED, phases=P, convention="B")
    assert phase_metrics(TRUTH, PREDICTED, phases=P) != phase_metrics(TRUTH, PREDICTED, phases=P, convention="A")


def test_accuracy_is_golden_per_video_and_over_videos():
    expected = EXPECTED["strict"]["accuracy"]
    np.testing.assert_allclose(strict_scores(TRUTH, PREDICTED, phases=P).accuracy, expected["per_video"], **EXACT)
    rows = phase_metrics(TRUTH, PREDICTED, phases=P)
    assert rows["phase/accuracy"] == pytest.approx(expected["mean_over_videos"], abs=1e-6)
    assert rows["phase/accuracy_sd"] == pytest.approx(expected["std_over_videos_ddof1"], abs=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_all_videos_as_one_give_the_golden_frame_pooled_macro(metric):
    scores = strict_scores([np.concatenate(TRUTH)], [np.concatenate(PREDICTED)], phases=P)
    expected = EXPECTED["strict"]["frame_pooled_sklearn"][f"{metric.lower()}_macro"]
    assert over_phases(getattr(scores, metric))[0] == pytest.approx(expected, abs=1e-6)
    assert scores.accuracy[0] == pytest.approx(EXPECTED["strict"]["accuracy"]["frame_pooled"], abs=1e-6)


def test_convention_b_per_video_is_scikit_learns_macro_over_the_labels_that_occur():
    """The zero-shot scripts of SurgVLP and PeskaVLP; once recomputed here, once from the golden file."""
    ours = over_phases(strict_scores(TRUTH, PREDICTED, phases=P).F1)
    macro = [f1_score(t, p, average="macro", zero_division=0) for t, p in zip(TRUTH, PREDICTED, strict=True)]
    np.testing.assert_allclose(ours, macro, **EXACT)
    np.testing.assert_allclose(ours, EXPECTED["strict"]["per_video_sklearn_macro"]["f1"], **EXACT)


@pytest.mark.parametrize("as_published", RELAXED)
@pytest.mark.parametrize("metric", ["precision", "recall", "jaccard"])
def test_relaxed_cells_and_averages_are_golden(metric, as_published):
    cells = getattr(relaxed_scores(TRUTH, PREDICTED, phases=P, as_published=as_published), metric)
    expected = EXPECTED[RELAXED[as_published]]
    np.testing.assert_allclose(100 * cells, numbers(expected["per_video"][metric]), **EXACT)
    np.testing.assert_allclose(100 * over_videos(cells), expected[f"per_phase_{metric}"], **EXACT)


@pytest.mark.parametrize("as_published", RELAXED)
def test_relaxed_accuracy_is_golden_per_video(as_published):
    accuracy = relaxed_scores(TRUTH, PREDICTED, phases=P, as_published=as_published).accuracy
    np.testing.assert_allclose(100 * accuracy, EXPECTED[RELAXED[as_published]]["per_video"]["accuracy"], **EXACT)


@pytest.mark.parametrize(("name", "as_published"), [("relaxed_fixed", False), ("relaxed_as_published", True)])
def test_the_flat_table_holds_the_golden_relaxed_means_and_spreads(name, as_published):
    rows, expected = phase_metrics(TRUTH, PREDICTED, phases=P), EXPECTED[RELAXED[as_published]]
    for metric in ("precision", "recall", "jaccard"):
        ours = [rows[f"phase/{name}/{metric}"], rows[f"phase/{name}/{metric}_sd_phases"]]
        golden = [expected[f"mean_{metric}"], expected[f"std_{metric}_over_phases"]]
        assert ours == pytest.approx(np.divide(golden, 100), abs=1e-8)
    ours = [rows[f"phase/{name}/accuracy"], rows[f"phase/{name}/accuracy_sd"]]
    golden = [expected["mean_accuracy"], expected["std_accuracy_over_videos"]]
    assert ours == pytest.approx(np.divide(golden, 100), abs=1e-8)


@pytest.mark.parametrize("as_published", RELAXED)
def test_a_boundary_of_no_seconds_is_the_golden_unrelaxed_script(as_published):
    scores = relaxed_scores(TRUTH, PREDICTED, phases=P, boundary_seconds=0, as_published=as_published)
    expected = EXPECTED["m2cai_unrelaxed"]
    for metric in ("precision", "recall", "jaccard"):
        per_phase = over_videos(getattr(scores, metric))
        np.testing.assert_allclose(100 * per_phase, expected[f"per_phase_{metric}"], **EXACT)
    assert 100 * scores.accuracy.mean() == pytest.approx(expected["mean_accuracy"], abs=1e-6)
    left_out = EXPECTED["strict"]["precision_nan_when_never_predicted"]["per_phase"]
    np.testing.assert_allclose(over_videos(scores.precision), left_out, **EXACT)


def test_strict_scores_of_one_video_are_worked_by_hand():
    """Phase 0: 2 of 3 annotated found, none falsely. Phase 1: both found, 1 falsely."""
    scores = strict_scores([np.array([0, 0, 0, 1, 1])], [np.array([0, 0, 1, 1, 1])], phases=2)
    assert scores.accuracy == pytest.approx([4 / 5])
    np.testing.assert_allclose(scores.precision, [[1, 2 / 3]])
    np.testing.assert_allclose(scores.recall, [[2 / 3, 1]])
    np.testing.assert_allclose(scores.jaccard, [[2 / 3, 2 / 3]])
    np.testing.assert_allclose(scores.F1, [[4 / 5, 4 / 5]])


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_absent_phase_neither_annotated_nor_predicted_is_left_out(convention):
    scores = strict_scores([np.array([0, 0])], [np.array([0, 0])], phases=2, convention=convention)
    for cells in scores[1:]:
        np.testing.assert_array_equal(cells, [[1, np.nan]])


@pytest.mark.parametrize(("convention", "expected"), [("A", np.nan), ("B", 0.0)])
def test_phase_predicted_where_it_is_not_annotated_is_zero_under_b_and_left_out_under_a(convention, expected):
    scores = strict_scores([np.array([0, 0])], [np.array([0, 1])], phases=2, convention=convention)
    for cells in scores[1:]:
        np.testing.assert_array_equal(cells[0, 1], expected)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_phase_annotated_but_never_predicted_is_zero(convention):
    scores = strict_scores([np.array([0, 1])], [np.array([0, 0])], phases=2, convention=convention)
    for cells in scores[1:]:
        assert cells[0, 1] == 0


def test_convention_a_is_never_lower_than_b():
    generator = np.random.default_rng(0)
    for _ in range(50):
        truth, found = (list(generator.integers(0, P, (3, 6))) for _ in range(2))
        a, b = (phase_metrics(truth, found, phases=P, convention=convention) for convention in CONVENTIONS)
        assert all(a[f"phase/{metric}"] >= b[f"phase/{metric}"] for metric in METRICS)


def test_accuracy_weighs_videos_equally_however_long():
    truth = [np.zeros(100, int), np.zeros(1, int)]
    rows = phase_metrics(truth, [truth[0], np.ones(1, int)], phases=2)
    assert rows["phase/accuracy"] == 0.5
    assert rows["phase/accuracy_sd"] == pytest.approx(0.5**0.5)


def test_a_perfect_prediction_scores_one_everywhere():
    rows = phase_metrics(TRUTH, TRUTH, phases=P)
    assert all(value == pytest.approx(0 if "_sd" in name else 1) for name, value in rows.items())


def test_the_spread_over_one_video_is_undefined_not_zero():
    rows = phase_metrics(TRUTH[:1], PREDICTED[:1], phases=P)
    assert rows["phase/accuracy_sd"] is None
    assert rows["phase/per_video/F1_sd"] is None
    assert rows["phase/F1_sd_phases"] is not None


def test_the_flat_table_has_the_documented_keys():
    def keys(prefix, metrics):
        yield from (f"{prefix}/accuracy", f"{prefix}/accuracy_sd")
        for name in metrics:
            yield from (f"{prefix}/{name}", f"{prefix}/{name}_sd_phases")
            yield from (f"{prefix}/per_video/{name}", f"{prefix}/per_video/{name}_sd")

    strict = set(keys("phase", METRICS))
    both = {key for name in ("fixed", "as_published") for key in keys(f"phase/relaxed_{name}", METRICS[:3])}
    assert set(phase_metrics(TRUTH, PREDICTED, phases=P)) == strict | both
    assert set(phase_metrics([np.array([0, 1])], [np.array([0, 1])], phases=3)) == strict


@pytest.mark.parametrize(("late", "right"), [(10, 10), (12, 10)])
def test_the_previous_phase_is_forgiven_for_ten_seconds_and_not_longer(late, right):
    truth, found = runs((0, 20), (1, 40)), runs((0, 20 + late), (1, 40 - late))
    for as_published in RELAXED:
        accuracy = relaxed(truth, found, as_published=as_published).accuracy[0]
        assert accuracy == pytest.approx((60 - late + right) / 60)


@pytest.mark.parametrize(("early", "right"), [(10, 10), (12, 10)])
def test_the_next_phase_is_forgiven_ten_seconds_ahead_only_when_fixed(early, right):
    truth, found = runs((0, 40), (1, 20)), runs((0, 40 - early), (1, 20 + early))
    assert relaxed(truth, found).accuracy[0] == pytest.approx((60 - early + right) / 60)
    assert relaxed(truth, found, as_published=True).accuracy[0] == pytest.approx((60 - early) / 60)


def test_as_published_an_early_transition_forgives_whatever_stands_at_the_start_of_the_run():
    """Samples 20 to 22 are an early phase 1; as published that forgives samples 0 to 2, of a phase far away."""
    truth, found = runs((0, 30), (1, 30)), runs((5, 3), (0, 17), (1, 3), (0, 7), (1, 30))
    fixed, published = relaxed(truth, found), relaxed(truth, found, as_published=True)
    assert fixed.accuracy[0] == published.accuracy[0] == pytest.approx(57 / 60)
    # Of the 33 samples annotated or predicted as phase 1.
    assert (fixed.jaccard[0, 1], published.jaccard[0, 1]) == pytest.approx((1, 30 / 33))


@pytest.mark.parametrize(
    ("annotated", "predicted", "forgiven"),
    [(2, 4, False), (3, 4, True), (3, 5, True), (4, 6, True), (3, 6, False), (5, 6, True)],
)
def test_before_its_end_a_run_of_the_last_four_phases_forgives_the_next_two(annotated, predicted, forgiven):
    accuracy = relaxed(runs((annotated, 30)), runs((annotated, 25), (predicted, 5))).accuracy[0]
    assert accuracy == pytest.approx(1 if forgiven else 25 / 30)


@pytest.mark.parametrize(
    ("annotated", "predicted", "forgiven"), [(4, 3, True), (4, 2, False), (5, 3, True), (6, 4, True), (6, 3, False)]
)
def test_after_its_start_a_run_of_the_last_two_phases_forgives_the_previous_two(annotated, predicted, forgiven):
    accuracy = relaxed(runs((annotated, 30)), runs((predicted, 5), (annotated, 25))).accuracy[0]
    assert accuracy == pytest.approx(1 if forgiven else 25 / 30)


def test_the_last_phases_of_eight_are_counted_from_the_end():
    """Evaluate_m2cai.m: the next two in phases 5 to 8 (here 4 to 7), the previous two in phases 7 and 8."""

    def accuracy(annotated, *found):
        return relaxed_scores([runs((annotated, 30))], [runs(*found)], phases=8).accuracy[0]

    assert accuracy(3, (3, 25), (5, 5)) == pytest.approx(25 / 30)
    assert accuracy(4, (4, 25), (6, 5)) == 1
    assert accuracy(5, (3, 5), (5, 25)) == pytest.approx(25 / 30)
    assert accuracy(6, (4, 5), (6, 25)) == 1


def test_every_run_of_a_phase_that_comes_back_has_its_own_boundaries():
    truth = runs((0, 20), (1, 20), (0, 20), (1, 20))
    found = runs((0, 25), (1, 10), (0, 30), (1, 15))
    assert relaxed(truth, found).accuracy[0] == pytest.approx(75 / 80)


def test_a_run_shorter_than_the_boundary_is_forgiven_whole_but_no_neighbour():
    truth, found = runs((1, 4), (2, 40)), runs((0, 4), (0, 6), (2, 34))
    assert relaxed(truth, found).accuracy[0] == pytest.approx(38 / 44)


def test_the_boundary_is_ten_seconds_at_any_sampling_rate():
    truth, found = runs((0, 20), (1, 40)), runs((0, 50), (1, 10))
    for fps, samples in ((0.5, 5), (1, 10), (2, 20)):
        assert relaxed(truth, found, fps=fps).accuracy[0] == pytest.approx((30 + samples) / 60)
        rows = phase_metrics([truth], [found], phases=P, fps=fps)
        assert rows["phase/relaxed_fixed/accuracy"] == pytest.approx((30 + samples) / 60)


def test_relaxed_precision_is_cut_at_one_and_one_where_only_forgiven_samples_exist():
    """Phase 1: 5 samples, all predicted as 0 and forgiven, so hits / predictions is 5 / 0."""
    scores = relaxed(runs((0, 20), (1, 5)), runs((0, 25)))
    assert scores.precision[0, 1] == 1
    assert scores.recall[0, 1] == 1
    # Of phase 0: 25 right samples are annotated or predicted as it, 20 are annotated.
    assert scores.recall[0, 0] == 1
    assert scores.jaccard[0, 0] == 1


def test_relaxed_precision_of_a_phase_never_predicted_is_left_out_and_its_recall_zero():
    scores = relaxed(runs((0, 20), (1, 30)), runs((0, 20), (5, 30)))
    np.testing.assert_array_equal(scores.precision[0, :2], [1, np.nan])
    np.testing.assert_array_equal(scores.recall[0, :2], [1, 0])


def test_relaxed_phase_that_is_not_annotated_is_left_out_even_if_predicted():
    scores = relaxed(runs((0, 50)), runs((0, 20), (5, 30)))
    for cells in scores[1:4]:
        assert np.isnan(cells[0, 1:]).all()


def test_relaxing_never_lowers_accuracy():
    strict = strict_scores(TRUTH, PREDICTED, phases=P).accuracy
    for as_published in RELAXED:
        assert (relaxed_scores(TRUTH, PREDICTED, phases=P, as_published=as_published).accuracy >= strict).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint64, np.int8])
def test_labels_of_a_narrow_or_unsigned_type_score_the_same(dtype):
    truth, found = ([video.astype(dtype) for video in videos] for videos in (TRUTH, PREDICTED))
    assert phase_metrics(truth, found, phases=P) == phase_metrics(TRUTH, PREDICTED, phases=P)


GOOD = np.array([0, 1, 2])


@pytest.mark.parametrize("score", [strict_scores, relaxed_scores, phase_metrics])
@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (GOOD, GOOD[:2], "video 1: 3 annotated samples, 2 predicted"),
        (GOOD, np.array([0, 7, 1]), "video 1: prediction holds labels 0 to 7; expected 0 to 6"),
        (np.array([-1, 0, 1]), GOOD, "video 1: truth holds labels -1 to 1; expected 0 to 6"),
        (np.array([], int), GOOD, r"video 1: truth is int64 \(0,\)"),
        (GOOD, np.array([], int), r"video 1: prediction is int64 \(0,\)"),
        (GOOD, GOOD.astype(float), "video 1: prediction is float64"),
        (GOOD, GOOD[:, None], r"video 1: prediction is int64 \(3, 1\)"),
    ],
)
def test_labels_that_do_not_fit_name_the_video_and_what_was_found(score, truth, predicted, message):
    with pytest.raises(ValueError, match=message):
        score([GOOD, truth], [GOOD, predicted], phases=P)


@pytest.mark.parametrize("score", [strict_scores, relaxed_scores, phase_metrics])
def test_missing_videos_are_refused(score):
    with pytest.raises(ValueError, match="2 annotated videos, 1 predicted"):
        score([GOOD, GOOD], [GOOD], phases=P)
    with pytest.raises(ValueError, match="0 annotated videos"):
        score([], [], phases=P)


def test_an_unknown_convention_is_refused():
    with pytest.raises(ValueError, match="'C'; expected 'A' or 'B'"):
        strict_scores([GOOD], [GOOD], phases=P, convention="C")


def test_relaxed_boundaries_of_another_procedure_are_refused():
    with pytest.raises(ValueError, match="for 3 phases"):
        relaxed_scores([GOOD], [GOOD], phases=3)


@pytest.mark.parametrize("options", [{"fps": 0.0}, {"fps": -1.0}, {"fps": float("nan")}, {"boundary_seconds": -1.0}])
def test_a_boundary_that_is_no_duration_is_refused(options):
    with pytest.raises(ValueError, match="expected above 0, at least 0"):
        relaxed_scores([GOOD], [GOOD], phases=P, **options)
