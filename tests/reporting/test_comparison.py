"""Several runs on one page: their numbers and paired differences; runs of different tasks are refused."""

import subprocess
import sys

import numpy as np
import pytest
from support.made_run import Rows, compare, copy_of, percent, read_csv

from xclip_module.reporting import report


def test_the_comparison_holds_both_runs_numbers_and_their_paired_difference(made, other, tmp_path):
    assert compare(made.folder, other.folder, output=tmp_path) == 0
    rows = {
        (row["run"], row["track"], row["split"], row["metric"]): row for row in read_csv(tmp_path / "comparison.csv")
    }
    key = ("similarity-only", "test", "AUROC")
    values = [run.metrics["splits"]["test"]["tracks"][key[0]]["macro"]["AUROC"] for run in (made, other)]
    draws = [np.load(run.folder / "bootstrap.npz")["test/similarity-only/AUROC"] for run in (made, other)]
    row = rows["second", *key]
    assert float(row["value"]) == pytest.approx(values[1], rel=1e-5)
    assert float(row["difference"]) == pytest.approx(values[1] - values[0], rel=1e-4)
    low, high = np.percentile(draws[1] - draws[0], [2.5, 97.5])
    assert (float(row["difference_low"]), float(row["difference_high"])) == pytest.approx((low, high), rel=1e-4)
    assert row["excludes_zero"] == str(bool(low > 0 or high < 0))
    assert rows["first", *key]["difference"] == ""
    gap = rows["first", "similarity-only", "test - val", "AUROC"]
    val = made.metrics["splits"]["val"]["tracks"]["similarity-only"]["macro"]["AUROC"]
    assert float(gap["value"]) == pytest.approx(values[0] - val, rel=1e-4)
    page = (tmp_path / "comparison.html").read_text()
    assert Rows(page).starting("second (similarity-only)")[1][0] == percent(values[1])
    assert "<script" not in page


def test_a_run_against_itself_differs_nowhere(made, tmp_path):
    twin = copy_of(made, tmp_path / "twin")
    assert compare(made.folder, twin, output=tmp_path) == 0
    rows = [row for row in read_csv(tmp_path / "comparison.csv") if row["run"] == "twin" and row["difference"]]
    assert len(rows) > 10
    for row in rows:
        assert (row["difference"], row["difference_low"], row["excludes_zero"]) == ("0", "0", "False")


def test_different_tracks_are_never_compared(made, tmp_path):
    def only_similarity(metrics):
        for result in metrics["splits"].values():
            result["tracks"] = {"similarity-only": result["tracks"]["similarity-only"]}

    bare = copy_of(made, tmp_path / "bare", change=only_similarity)
    assert compare(bare, made.folder, output=tmp_path) == 0
    rows = [row for row in read_csv(tmp_path / "comparison.csv") if row["track"] == "+query-set"]
    assert {row["run"] for row in rows} == {"first"}
    assert {row["difference"] for row in rows} == {""}
    assert "has no such track" in (tmp_path / "comparison.html").read_text()


def other_hash(metrics):
    metrics["protocol"]["data"] = metrics["protocol"]["data"].replace("0123456789ab", "ffffffffffff")


def other_prompts(metrics):
    metrics["protocol"]["data"] = metrics["protocol"]["data"].replace("x.csv", "y.csv")


def other_ids(metrics):
    metrics["splits"]["test"]["ids"][0] = "video55"


def other_truth(metrics):
    metrics["splits"]["test"]["truth"] = "eeeeeeeeeeee"


def other_draws(metrics):
    metrics["protocol"]["intervals"] = "95 %, 50 draws of videos, seed 7"


def other_queries(metrics):
    metrics["splits"]["val"]["queries"] = {"a clip": {}}


def fewer_splits(metrics):
    del metrics["splits"]["test"]


def an_old_version(metrics):
    del metrics["splits"]["test"]["tracks"]


def no_splits(metrics):
    metrics["splits"] = {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_hash, ["split", "0123456789ab", "ffffffffffff"]),
        (other_ids, ["videos in test", "video55"]),
        (other_truth, ["truth in test", "eeeeeeeeeeee"]),
        (other_draws, ["intervals", "seed 7"]),
        (other_queries, ["queries in val", "a clip"]),
        (fewer_splits, ["splits scored", "test"]),
        (no_splits, ["nothing to compare"]),
        (an_old_version, ["another version", "tracks"]),
    ],
)
def test_runs_of_different_tasks_are_refused_and_the_difference_is_named(made, tmp_path, capsys, change, words):
    changed = copy_of(made, tmp_path / "changed", change=change)
    assert compare(made.folder, changed, output=tmp_path) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in [*words, "changed"])
    assert not (tmp_path / "comparison.html").exists()


def other_crop(metrics):
    metrics["protocol"]["picture"] = "32 px, crop squash"


def test_every_difference_in_how_the_runs_were_made_is_on_the_page(made, tmp_path):
    assert compare(made.folder, copy_of(made, tmp_path / "b", change=other_crop), output=tmp_path) == 0
    assert "crop squash" in (tmp_path / "comparison.html").read_text()


def test_other_prompts_are_another_model_of_the_same_task(made, tmp_path):
    assert compare(made.folder, copy_of(made, tmp_path / "b", change=other_prompts), output=tmp_path) == 0


def test_folders_that_are_no_runs_are_refused_by_name(made, tmp_path, capsys):
    damaged = {"metrics.json": b"{", "bootstrap.npz": b"PK", "config.json": b"[]"}
    cases = [(tmp_path / "nowhere", "no such run folder")]
    for name, content in damaged.items():
        folder = copy_of(made, tmp_path / name)
        (folder / name).write_bytes(content)
        cases.append((folder, name))
    missing = copy_of(made, tmp_path / "missing")
    (missing / "environment.json").unlink()
    cases.append((missing, "environment.json"))
    for folder, word in cases:
        assert compare(made.folder, folder, output=tmp_path) == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert word in line


def test_one_run_alone_is_a_usage_error(made, capsys):
    with pytest.raises(SystemExit) as ended:
        report.main([str(made.folder)])
    assert ended.value.code == 2
    assert "two run folders or more" in capsys.readouterr().err


def test_runs_in_folders_of_one_name_are_told_apart(made, tmp_path):
    twin = copy_of(made, tmp_path / "b" / "first")
    assert compare(made.folder, twin, output=tmp_path) == 0
    assert {row["run"] for row in read_csv(tmp_path / "comparison.csv")} == {str(made.folder), str(twin)}


def test_the_same_run_twice_and_damaged_files_are_refused_in_one_line(made, tmp_path, capsys):
    def damage(metrics):
        metrics["splits"]["test"]["tracks"] = {"similarity-only": None}

    for pair in ((made.folder, made.folder), (made.folder, copy_of(made, tmp_path / "b", change=damage))):
        assert compare(*pair, output=tmp_path) == 3
    (tmp_path / "file").write_text("")
    assert compare(made.folder, copy_of(made, tmp_path / "c"), output=tmp_path / "file") == 5
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)


def test_the_command_loads_retrieval_and_matplotlib_only_where_they_are_needed():
    """A tree without retrieval compares its localisation runs all the same."""
    listing = "print([name for name in sys.modules if name == 'matplotlib' or 'reporting.retrieval' in name])"
    code = f"import sys, xclip_module.reporting.report, xclip_module.reporting.page; {listing}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
