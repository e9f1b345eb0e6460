"""Retrieval runs side by side, and what is refused."""

import json
import re

import numpy as np
import pytest
from support.made_retrieval_run import VALUES, metrics
from support.made_run import Rows, compare, read_csv


def folder_of(known, folder):
    folder.mkdir()
    for name, content in (("metrics", known), ("config", {}), ("environment", {})):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_two_retrieval_runs_stand_side_by_side(tmp_path):
    first = folder_of(metrics(), tmp_path / "first")
    better = metrics(split={"metrics": {**VALUES, "t2v/R@1": 0.5, "t2v/MnR": 15.0, "v2t/MdR": None}})
    second = folder_of({**better, "protocol": {**better["protocol"], "words": 77}}, tmp_path / "second")
    assert compare(first, second, output=tmp_path) == 0
    page = (tmp_path / "comparison.html").read_text()
    assert Rows(page).starting("second")[-1][:5] == ["50.0", "70.4", "80.8", "2.0", "15.0"]
    assert re.findall(r"<small>(Δ .*?)</small>", page)[:5] == ["Δ +6.9", "Δ +0.0", "Δ +0.0", "Δ +0.0", "Δ −1.2"]
    assert '<tr class="track"><th>words' in page
    rows = {(row["run"], row["metric"]): row for row in read_csv(tmp_path / "comparison.csv")}
    assert len(rows) == 20
    assert float(rows["second", "t2v/R@1"]["difference"]) == pytest.approx(0.069)
    assert rows["first", "t2v/R@1"]["difference"] == rows["second", "v2t/MdR"]["value"] == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"skipped": {"video7": "why"}}, ["videos left out", "video7"]),
        ({"split": {"videos": 999}}, ["videos in test", "999"]),
        ({"protocol": {"data": "msvd test", "v2t": "best-caption"}}, ["split", "msvd"]),
        ({"protocol": {"data": "msrvtt-9k test, 0123456789ab", "v2t": "any-caption"}}, ["rules (v2t)", "any-caption"]),
    ],
)
def test_runs_of_other_data_or_rules_are_refused(tmp_path, capsys, changes, words):
    folders = folder_of(metrics(), tmp_path / "a"), folder_of(metrics(**changes), tmp_path / "b")
    assert compare(*folders, output=tmp_path) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in words)


def test_a_retrieval_run_beside_a_localisation_run_is_one_clear_line(tmp_path, capsys):
    located = tmp_path / "located"
    located.mkdir()
    for name in ("config", "environment"):
        (located / f"{name}.json").write_text("{}")
    split = {"ids": [], "videos": 0, "queries": {}, "tracks": {}, "truth": ""}
    known = {"protocol": {"data": "x"}, "track": "", "untrained": False, "splits": {"test": split}}
    (located / "metrics.json").write_text(json.dumps(known))
    np.savez(located / "bootstrap.npz")
    retrieved = folder_of(metrics(), tmp_path / "retrieved")
    for pair in ((located, retrieved), (retrieved, located)):
        assert compare(*pair, output=tmp_path) == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: runs of different kinds: ")
        assert "a retrieval run" in line
        assert "localisation run" in line
