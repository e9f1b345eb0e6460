"""The evaluator of any tool's files: its numbers, its counts, and the command that prints them."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.judged_files import ANSWER, TRUTH, evaluate, write

from xclip_module.evaluation.localisation import localise_pairs, metrics, of_query, statistics
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


def test_a_full_output_ends_with_one_line_and_code_5(tmp_path):
    files = [str(write(tmp_path / f"{n}.jsonl", rows)) for n, rows in (("p", ANSWER), ("g", TRUTH))]
    command = [sys.executable, "-m", "xclip_module.evaluation.localisation", "--predictions", files[0]]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*command, "--ground-truth", files[1]], stdout=full, stderr=-1, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n"), done.stderr[:7]) == (5, 1, "error: ")


def test_the_module_runs_as_a_program(tmp_path):
    files = [write(tmp_path / "p.jsonl", ANSWER), write(tmp_path / "g.jsonl", TRUTH)]
    command = [sys.executable, "-m", "xclip_module.evaluation.localisation", "--json"]
    done = subprocess.run(
        [*command, "--predictions", files[0], "--ground-truth", files[1]], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["R1@0.5"] == 1.0


def test_reading_the_metrics_loads_neither_torch_nor_scikit_learn():
    """A command that judges two files starts in a moment."""
    modules = "xclip_module.evaluation.localisation, sys"
    heavy = "sorted({'torch', 'sklearn', 'matplotlib', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"import {modules}; print({heavy})"], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
