"""Files of any tool: what is judged, what is counted as left out, and what is said to broken ones."""

import json

import pytest
from support.judged_files import ANSWER, TRUTH, evaluate, write

from xclip_module.errors import DataError
from xclip_module.evaluation.localisation import main


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
