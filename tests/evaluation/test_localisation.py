"""The evaluator of any tool's files: its numbers, its counts, and what it says to broken files."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xclip_module.errors import DataError
from xclip_module.evaluation.bootstrap import draw_weights, intervals, paired_difference, weights_of
from xclip_module.evaluation.localisation import localise_pairs, main, metrics, of_query, statistics
from xclip_module.evaluation.moment_files import read_files
from xclip_module.evaluation.segments import THRESHOLDS
from xclip_module.interface import Moment, Pair

GOLDEN = Path(__file__).parents[1] / "golden" / "localization" / "moment_retrieval"
CASES = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
DECIMAL = [limit for limit in THRESHOLDS if limit >= 0.5]


@pytest.mark.parametrize("name", CASES)
def test_pair_ap_of_every_query_equals_moment_detr(name):
    """Queries that the released code makes NaN, drops or counts 0/0 in are left to the tests below."""
    read = read_files(GOLDEN / name / "pred.jsonl", GOLDEN / name / "gt.jsonl")
    found = localise_pairs(read.pairs)
    raw = json.loads((GOLDEN / name / "expected.json").read_text())["raw"]
    ours = {query: result.ap[[THRESHOLDS.index(limit) for limit in DECIMAL]] for query, _, result in found.results}
    queries = {
        row["qid"]: row["query"] for row in map(json.loads, (GOLDEN / name / "gt.jsonl").read_text().splitlines())
    }
    odd = {"query_without_gt": {5}, "zero_length_windows": {0, 1, 2}}.get(name, set())
    compared = [(ours[queries[qid]], ap) for qid, ap in zip(raw["qid"], raw["ap"], strict=True) if qid not in odd]
    assert len(compared) >= 37
    for own, reference in compared:
        np.testing.assert_allclose(own, [float(x) for x in reference], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["exact_threshold_iou", "saliency_length_mismatch", "score_ties"])
def test_the_means_equal_the_official_ones(name):
    read = read_files(GOLDEN / name / "pred.jsonl", GOLDEN / name / "gt.jsonl")
    found = metrics(localise_pairs(read.pairs))
    expected = json.loads((GOLDEN / name / "expected.json").read_text())
    assert found["mIoU"] == pytest.approx(expected["raw"]["mIoU_top1"], abs=1e-6)
    assert found["pair_mAP@0.5:0.95"] == pytest.approx(float(expected["raw"]["mAP_average"]), abs=1e-6)
    for limit in map("{:g}".format, DECIMAL):
        assert 100 * found[f"R1@{limit}"] == pytest.approx(expected["official_compute_mr_r1"][limit], abs=0.0051)


def test_a_query_without_predictions_counts_zero_instead_of_vanishing():
    """Two of forty queries have no window: the official mean over 38 times 38/40 is ours."""
    folder = GOLDEN / "query_without_predictions"
    found = metrics(localise_pairs(read_files(folder / "pred.jsonl", folder / "gt.jsonl").pairs))
    raw = json.loads((folder / "expected.json").read_text())["raw"]
    assert found["pairs_with_truth"] == 40
    assert found["pair_mAP@0.5:0.95"] == pytest.approx(np.mean(raw["ap"]) * 38 / 40, abs=1e-6)


def test_recall_on_a_grid_is_the_published_one_with_the_threshold_included():
    """Charades-STA style; 2D-TAN's strict comparison gives .300 where >= gives .717."""
    inputs = json.loads((GOLDEN / "grid_inputs.json").read_text())
    expected = json.loads((GOLDEN / "grid_expected.json").read_text())["greater_or_equal_no_nms"]
    ranked = inputs[next(key for key in inputs if "predictions" in key or "segments" in key)]
    pairs = [
        Pair(str(i), str(i), (tuple(truth),), tuple(Moment(*span[:2], -float(k)) for k, span in enumerate(found)))
        for i, (truth, found) in enumerate(zip(inputs["ground_truth"], ranked, strict=True))
    ]
    found = metrics(localise_pairs(pairs))
    assert {key: pytest.approx(found[key], abs=1e-9) for key in expected} == expected


PAIRS = [
    Pair("clip", "a", ((0, 10),), (Moment(0, 10, 3.0),)),
    Pair("clip", "b", ((0, 10),), (Moment(40, 50, 5.0), Moment(0, 10, 1.0))),
    Pair("bag", "a", (), (Moment(0, 5, 9.0),)),
    Pair("bag", "b", ((5, 10),), ()),
]


def test_every_number_of_a_small_set_is_worked_by_hand():
    """clip, pooled: miss 5, hit 3, hit 1: (2/3 + 2/3) / 2. bag: no answer, 0. Per pair: 1, 1/2, 0."""
    found = metrics(localise_pairs(PAIRS))
    assert found["det_mAP@0.5"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["pair_mAP@0.5"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert found["R1@0.5"] == pytest.approx(1 / 3)
    assert found["R5@0.5"] == pytest.approx(2 / 3)
    assert found["mIoU"] == pytest.approx(1 / 3)
    counts = ("queries", "videos", "pairs_with_truth", "pairs_absent", "pairs_absent_with_predictions", "predictions")
    assert [found[key] for key in counts] == [2, 2, 3, 1, 1, 4]
    # Best scores 3, 5, none where present, 9 where absent: the absent one ranks above all.
    assert found["presence_AUROC"] == 0.0
    assert of_query(localise_pairs(PAIRS), "clip")["det_mAP@0.5"] == pytest.approx(2 / 3)


def test_an_absent_query_has_no_ap_but_its_false_alarms_are_counted():
    found = metrics(localise_pairs([Pair("bag", "a", (), (Moment(0, 5, 9.0),))]))
    assert found["det_mAP@0.5"] is None
    assert found["mIoU"] is None
    assert found["pairs_absent_with_predictions"] == 1


@pytest.mark.parametrize(
    "pair",
    [
        Pair("q", "v", (), (Moment(0, 1, math.nan),)),
        Pair("q", "v", ((0, math.nan),), ()),
        Pair("q", "v", ((5, 5),), (Moment(0, 1, 1.0),)),
        Pair("q", "v", ((0, 5),), (Moment(3, 2, 1.0),)),
        Pair("q", "v", ((0, 5),), (Moment(0, math.inf, 1.0),)),
    ],
)
def test_nan_and_segments_without_length_are_refused_wherever_they_stand(pair):
    with pytest.raises(ValueError, match="v, 'q': segment"):
        localise_pairs([pair, *PAIRS])


def test_the_share_of_tied_scores_is_per_query():
    pairs = [
        Pair("x", "a", ((0, 1),), (Moment(0, 1, 1.0), Moment(2, 3, 1.0), Moment(4, 5, 2.0))),
        Pair("y", "a", ((0, 1),), (Moment(0, 1, 1.0),)),
    ]
    assert metrics(localise_pairs(pairs))["tied_share"] == 0.5


def test_the_bootstrap_of_every_metric_equals_really_repeated_videos():
    found = localise_pairs(PAIRS)
    drawn = statistics(found, np.array([[2.0, 0.0], [1.0, 1.0]]))
    twice = [pair._replace(video=pair.video + n) for n in "12" for pair in PAIRS if pair.video == "a"]
    expected = metrics(localise_pairs(twice))
    for key, values in drawn.items():
        assert values[0] == pytest.approx(expected[key]), key
        assert values[1] == pytest.approx(metrics(found)[key]), key


def test_the_same_seed_draws_the_same_videos_and_another_seed_others():
    np.testing.assert_array_equal(draw_weights(8, 100, 1), draw_weights(8, 100, 1))
    assert (draw_weights(8, 100, 1) != draw_weights(8, 100, 2)).any()


def test_the_interval_is_that_of_the_golden_bootstrap():
    """Given drawn indices and per-video values, percentiles 2.5 and 97.5 of the resampled means."""
    folder = GOLDEN.parent / "frame_level"
    expected = json.loads((folder / "ranking_expected.json").read_text())
    indices = np.load(folder / "bootstrap_indices.npz")
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


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


TRUTH = [{"qid": 1, "query": "a clip", "vid": "v", "duration": 60, "relevant_windows": [[0, 10]]}]
ANSWER = [{"qid": 1, "query": "a clip", "vid": "v", "pred_relevant_windows": [[0, 9, 0.5]]}]


def evaluate(folder, truth, answers, *flags):
    arguments = ["--ground-truth", str(write(folder / "g.jsonl", truth))]
    return main([*arguments, "--predictions", str(write(folder / "p.jsonl", answers)), *flags])


def test_the_command_prints_one_json_object_of_fractions(tmp_path, capsys):
    assert evaluate(tmp_path, TRUTH, ANSWER, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["det_mAP@0.5"], found["pair_mAP@0.9"], found["R1@0.95"], found["mIoU"]) == (1.0, 1.0, 0.0, 0.9)


def test_the_command_prints_a_table_in_percent(tmp_path, capsys):
    assert evaluate(tmp_path, TRUTH, ANSWER) == 0
    text = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines()}
    assert rows["det_mAP"] == ["100.00", "100.00", "100.00", "90.00"]
    assert rows["mIoU"] == ["90.00"]
    assert "0.0% with tied scores" in text


def test_what_cannot_be_judged_is_counted_by_reason(tmp_path, capsys):
    truth = [
        *TRUTH,
        {"qid": 2, "query": "a bag", "vid": "v", "relevant_windows": [[3, 3], [5, 8], [5, 8]]},
        {"qid": 3, "query": "a hook", "vid": "v"},
    ]
    answers = [
        {"qid": 1, "pred_relevant_windows": [[4, 4, 9.0], [8, 2, 8.0], [0, 10, 1.0]]},
        {"qid": 7, "pred_relevant_windows": [[0, 1, 1.0]]},
    ]
    assert evaluate(tmp_path, truth, answers, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["left_out"] == {
        "predictions of no or negative length": 2,
        "queries that are not annotated": 1,
        "true segments of no or negative length": 1,
        "repeated true segments": 1,
        "predicted queries without ground truth": 1,
    }
    assert found["det_mAP@0.5"] == 0.5


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("p", "{", ("line 2", "not JSON")),
        ("p", {"qid": 5}, ("line 2", "missing pred_relevant_windows")),
        ("p", {"qid": 5, "pred_relevant_windows": [[1, 2]]}, ("line 2", "[1, 2]", "[[start, end, score]")),
        ("p", {"qid": 5, "pred_relevant_windows": [[1, 2, "x"]]}, ("line 2", "wrong segment")),
        ("p", '{"qid": 5, "pred_relevant_windows": [[1, 2, NaN]]}', ("line 2", "finite")),
        ("p", {"qid": 5, "pred_relevant_windows": [[0, 10**400, 1]]}, ("line 2", "wrong segment")),
        ("p", '{"qid": 5, "pred_relevant_windows": ' + "[" * 100_000, ("line 2", "not JSON")),
        ("g", {"qid": 5, "query": None, "vid": "v"}, ("line 2", "wrong query")),
        ("p", {"qid": 5, "pred_relevant_windows": "none"}, ("line 2", "list of segments")),
        ("p", {"qid": 1, "pred_relevant_windows": []}, ("line 2", "repeated qid")),
        ("g", {"qid": 5, "query": "x", "relevant_windows": []}, ("line 2", "missing vid")),
        ("g", {"qid": 1, "query": "x", "vid": "v"}, ("line 2", "repeated qid")),
        ("g", {"qid": [1], "query": "x", "vid": "v"}, ("line 2", "wrong qid")),
        ("g", [1], ("line 2", "missing qid, query, vid")),
    ],
)
def test_a_malformed_line_is_named_with_what_was_expected(tmp_path, capsys, file, line, words):
    rows = {"g": [*TRUTH, *([line] if file == "g" else [])], "p": [*ANSWER, *([line] if file == "p" else [])]}
    assert evaluate(tmp_path, rows["g"], rows["p"]) == DataError.exit_code
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert f"{file}.jsonl, line 2" in message
    assert all(word in message for word in words)


def test_one_split_of_a_file_can_be_judged_alone(tmp_path, capsys):
    """Also where the predictions, as those of other tools, name no split."""
    truth = [{**TRUTH[0], "split": "val"}, {**TRUTH[0], "qid": 2, "split": "test"}]
    own = [{**ANSWER[0], "split": "val"}, {"qid": 2, "pred_relevant_windows": [], "split": "test"}]
    foreign = [ANSWER[0], {"qid": 2, "pred_relevant_windows": []}]
    for split, expected in (("val", 1.0), ("test", 0.0), ("", 0.5)):
        for answers in (own, foreign):
            assert evaluate(tmp_path, truth, answers, "--json", f"--split={split}") == 0
            assert json.loads(capsys.readouterr().out)["R1@0.5"] == expected
    assert evaluate(tmp_path, truth, own, "--split=train") == DataError.exit_code
    assert "no line of split train" in capsys.readouterr().err


def test_the_order_of_the_lines_decides_nothing_between_videos(tmp_path, capsys):
    truth = [
        {**TRUTH[0], "qid": n, "vid": v, "relevant_windows": w}
        for n, v, w in [(1, "a", [[0, 10]]), (2, "b", [[50, 60]])]
    ]
    answers = [{"qid": n, "pred_relevant_windows": [[0, 10, 0.5]]} for n in (1, 2)]
    found = []
    for lines in (truth, truth[::-1]):
        assert evaluate(tmp_path, lines, answers, "--json") == 0
        found.append(json.loads(capsys.readouterr().out)["det_mAP@0.5"])
    assert found == [0.5, 0.5]


def test_queries_with_a_name_are_told_apart_by_it(tmp_path, capsys):
    """Two classes may share a sentence; pooled, the false alarm of one would stand before the hit of the other."""
    truth = [
        {**TRUTH[0], "name": "first"},
        {**TRUTH[0], "qid": 2, "vid": "w", "name": "second"},
    ]
    answers = [{"qid": 1, "pred_relevant_windows": [[0, 10, 1]]}, {"qid": 2, "pred_relevant_windows": [[30, 40, 2]]}]
    assert evaluate(tmp_path, truth, answers, "--json") == 0
    assert json.loads(capsys.readouterr().out)["det_mAP@0.5"] == 0.5


def test_predictions_of_which_no_qid_is_known_are_refused(tmp_path, capsys):
    assert evaluate(tmp_path, TRUTH, [{**ANSWER[0], "qid": "1"}]) == DataError.exit_code
    assert "none of its 1 qids" in capsys.readouterr().err


def test_a_full_output_ends_with_one_line_and_code_5(tmp_path):
    files = [str(write(tmp_path / f"{n}.jsonl", rows)) for n, rows in (("p", ANSWER), ("g", TRUTH))]
    command = [sys.executable, "-m", "xclip_module.evaluation.localisation", "--predictions", files[0]]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*command, "--ground-truth", files[1]], stdout=full, stderr=-1, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n"), done.stderr[:7]) == (5, 1, "error: ")


def test_predictions_of_another_video_are_refused(tmp_path, capsys):
    assert evaluate(tmp_path, TRUTH, [{**ANSWER[0], "vid": "w"}]) == DataError.exit_code
    assert "predictions of another video" in capsys.readouterr().err


def test_missing_binary_and_empty_files_are_refused_in_one_line(tmp_path, capsys):
    good = str(write(tmp_path / "g.jsonl", TRUTH))
    (tmp_path / "b").write_bytes(b"\xff\xfe\x00\x81")
    for bad in ("absent", "b", "."):
        assert main(["--ground-truth", good, "--predictions", str(tmp_path / bad)]) == DataError.exit_code
    (tmp_path / "e").write_text("")
    assert main(["--ground-truth", str(tmp_path / "e"), "--predictions", good.replace("g.", "p.")]) == 3
    assert capsys.readouterr().err.count("\n") == 4


def test_the_module_runs_as_a_program(tmp_path):
    files = [write(tmp_path / "p.jsonl", ANSWER), write(tmp_path / "g.jsonl", TRUTH)]
    command = [sys.executable, "-m", "xclip_module.evaluation.localisation", "--json"]
    done = subprocess.run(
        [*command, "--predictions", files[0], "--ground-truth", files[1]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["R1@0.5"] == 1.0
