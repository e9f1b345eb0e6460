"""The report of a run and the comparison of several: right numbers, safe, self-contained, the same twice."""

import base64
import html.parser
import json
import re
import time
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from support.made_run import (
    LONG,
    QUERIES,
    Made,
    Rows,
    compare,
    copy_of,
    corpus,
    curves,
    percent,
    read_csv,
    section,
)

from xclip_module.evaluation.boundaries import boundary_errors
from xclip_module.interface import Answer, Moment, Pair, Query
from xclip_module.reporting import markdown, plots, report, tables, verdicts
from xclip_module.reporting.differences import Difference, independent, paired
from xclip_module.reporting.page import Pictures, html_report
from xclip_module.reporting.palette import query_colours
from xclip_module.reporting.picture import label_lines, svg_bytes
from xclip_module.reporting.ribbon import Ribbon, ribbon_figure
from xclip_module.tasks.localisation import pictures


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("made") / "first")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return Made(tmp_path_factory.mktemp("made") / "second", seed=1)


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_tables_of_the_page_hold_the_numbers_of_metrics_json(made, split):
    result = json.loads((made.folder / "metrics.json").read_text())["splits"][split]
    rows = Rows(section(made.page, split))
    keys = ("AUROC", "AUPRC", "prevalence", "lift", "R1@0.5", "mIoU", "det_mAP@0.3", "det_mAP@0.5", "det_mAP@0.7")
    macros = {name: track["macro"] for name, track in result["tracks"].items()} | result["controls"]
    assert {"similarity-only", "random", "whole video", "train mean", "time prior", "oracle"} <= set(macros)
    for name, macro in macros.items():
        expected = [f"{macro[key]:.2f}" if key == "lift" else percent(macro[key]) for key in keys]
        assert rows.starting(name)[0][: len(keys)] == expected
    for name, row in result["queries"].items():
        shown = rows.starting(name)[0]
        assert shown[0] == percent(row["AUROC"])
        assert shown[-7:-5] == [percent(row["R1@0.5"]), percent(row["mIoU"])]
        assert shown[-5:-2] == [percent(row[f"{key}_pooled"]) for key in ("AUROC", "AUPRC", "prevalence")]
        assert shown[-2:] == [str(row["pairs"]), str(row["absent"])]
    for name, row in result["per_video"].items():
        assert rows.starting(name)[0][:2] == [percent(row["AUROC"]), percent(row["AUPRC"])]
    low, high = (100 * bound for bound in result["tracks"]["similarity-only"]["intervals"]["AUROC"])
    assert f"[{low:.1f}, {high:.1f}]" in section(made.page, split)


def test_what_is_undefined_is_a_dash(made):
    assert made.metrics["splits"]["test"]["queries"]["Bag"]["AUROC"] is None
    assert Rows(section(made.page, "test")).starting("Bag")[0][:3] == ["–", "–", "–"]


def test_tracks_are_rows_of_their_own_and_controls_are_explained(made):
    for name in made.metrics["splits"]["val"]["tracks"]:
        assert tables.TRACKS[name] in made.page
    for name in made.metrics["splits"]["val"]["controls"]:
        assert tables.CONTROLS[name] in made.page


def test_videos_come_worst_first_and_lead_to_their_pictures(made):
    part = section(made.page, "test")
    rows = made.metrics["splits"]["test"]["per_video"]
    expected = sorted(rows, key=lambda video: rows[video]["AUROC"])
    assert re.findall(r'<a href="#video-\d+">(.*?)</a>', part) == expected
    assert re.findall(r"<summary>(.*?)</summary>", part) == expected
    for target in re.findall(r'<a href="#(.*?)">', made.page):
        assert f'id="{target}"' in made.page


def test_untrained_weights_skipped_videos_and_the_plain_language_line_are_on_the_page(made):
    assert "untrained (random): expect chance" in made.page
    assert "video99: no file &lt;script&gt;" in section(made.page, "test")
    share = made.metrics["splits"]["test"]["macro"]["R1@0.5"]
    line = f"the first answer overlaps the true moment by half or more in {100 * share:.0f}"
    assert line in section(made.page, "test")


def test_foreign_text_stays_text(made):
    """Query texts, names, file names and the environment are not ours."""
    assert "<script" not in made.page
    assert "&lt;script&gt;alert" in made.page
    for path in (made.folder / "pictures").glob("*.svg"):
        tags = {element.tag.split("}")[1] for element in ET.parse(path).iter()}
        assert "script" not in tags
        assert "g" in tags


def test_the_page_needs_nothing_beside_it(made):
    """No address leads out, of the page or of the pictures in it."""
    addresses = re.findall(r"""(?:src|href|action|data)\s*=\s*["']([^"']*)""", made.page)
    assert any(address.startswith("data:image/svg+xml;base64,") for address in addresses)
    for address in addresses:
        assert address.startswith(("data:image/", "#"))
        if address.startswith("data:image/svg"):
            svg = base64.b64decode(address.split(",")[1]).decode()
            inner = re.findall(r'href="([^"]{0,20})', svg) + re.findall(r"url\(([^)]*)\)", svg)
            assert all(one.startswith(("#", "data:")) for one in inner)
    assert not re.search(r"https?:|@import|url\(", made.page)


def test_equal_runs_leave_equal_pages_and_pictures(made, tmp_path):
    again = Made(tmp_path / "again")
    assert again.page == made.page
    for path in (made.folder / "pictures").iterdir():
        assert (again.folder / "pictures" / path.name).read_bytes() == path.read_bytes()


def test_every_picture_has_its_numbers_beside_it(made):
    names = {path.name for path in (made.folder / "pictures").iterdir()}
    drawn = {name.removesuffix(".svg") for name in names if name.endswith(".svg")}
    assert {"ribbon_video7", "pr_val", "roc_test", "map_tiou", "boundary_errors"} <= drawn
    assert {f"{name}.csv" for name in drawn} <= names
    for name in re.findall(r"<code>pictures/(.*?)</code>", made.page):
        assert html.unescape(name) in names


def test_the_numbers_beside_a_ribbon_are_the_scores_and_segments(made):
    answer = next(one for one in made.found.answers["similarity-only"] if one.video == "video7")
    rows = read_csv(made.folder / "pictures" / "ribbon_video7.csv")
    np.testing.assert_allclose([float(row["Hook"]) for row in rows], answer.ranking[3], rtol=1e-5)
    names = [QUERIES[row].name for row in answer.ranking[:3].argmax(axis=0)]
    assert [row["predicted phase"] for row in rows] == names
    spans = read_csv(made.folder / "pictures" / "ribbon_video7.spans.csv")
    truth = [
        (float(row["start"]), float(row["end"])) for row in spans if (row["query"], row["what"]) == ("Hook", "truth")
    ]
    assert truth == [(5.0, 12.0), (30.0, 44.0)]
    found = [float(row["start"]) for row in spans if (row["query"], row["what"]) == ("Hook", "moment")]
    np.testing.assert_allclose(found, [moment.start for moment in answer.moments["Hook"]], rtol=1e-5)


def test_the_numbers_beside_the_map_curve_are_those_of_metrics_json(made):
    for row in read_csv(made.folder / "pictures" / "map_tiou.csv"):
        result = made.metrics["splits"][row["split"].split(",")[0]]
        macro = (result["controls"] | {name: one["macro"] for name, one in result["tracks"].items()})[
            row["track or control"]
        ]
        assert float(row["det_mAP"]) == pytest.approx(macro[f"det_mAP@{row['tIoU']}"], rel=1e-5)


def test_the_area_under_the_drawn_steps_is_the_pooled_ap(made):
    rows = [row for row in read_csv(made.folder / "pictures" / "pr_val.csv") if row["query"] == "4 Hook"]
    recall, precision = (np.array([float(row[key]) for row in rows]) for key in ("recall", "precision"))
    area = np.sum((recall[:-1] - recall[1:]) * precision[:-1])
    assert area == pytest.approx(made.metrics["splits"]["val"]["queries"]["Hook"]["AUPRC_pooled"], abs=0.005)


def test_the_ribbon_says_which_phase_was_true_and_which_was_predicted(made):
    known = corpus()
    answer = next(one for one in made.found.answers["similarity-only"] if one.video == "video7")
    ribbon = pictures.ribbon_of(answer, known)
    for second, phase in zip(ribbon.times, ribbon.true_phase, strict=True):
        (inside,) = [
            row for row in range(3) if any(a <= second < b for a, b in known.moments["video7"][QUERIES[row].name])
        ]
        assert phase == inside
    bare = pictures.ribbon_of(answer, known._replace(moments={}))
    assert bare.true_phase is None
    assert bare.truth == [None] * len(QUERIES)


def full_ribbon():
    rng = np.random.default_rng(0)
    kinds = ["phase"] * 7 + ["tool"] * 7
    return Ribbon(
        video="video41",
        times=np.arange(600) * 4 + 2.0,
        duration=2400.0,
        scores=rng.normal(size=(14, 600)),
        names=[LONG] * 14,
        kinds=kinds,
        truth=[[(float(a), float(a) + 30) for a in range(0, 2400, 120)]] * 14,
        moments=[[(float(a), float(a) + 60, 1.0) for a in range(0, 2000, 100)]] * 14,
        true_phase=np.repeat(np.arange(7), 86)[:600],
        predicted=rng.integers(0, 7, 600),
    )


def test_forty_videos_of_noise_stay_below_15_mb_and_a_second_and_a_half_each():
    """Noise is the worst case: the prediction changes at nearly every sample."""
    start = time.process_time()
    size = len(svg_bytes(ribbon_figure(full_ribbon())))
    assert time.process_time() - start < 1.5
    assert 40 * size * 4 / 3 < 12e6


def test_fourteen_queries_can_be_told_apart():
    colours = query_colours(["phase"] * 7 + ["tool"] * 7)
    assert len(set(colours)) == 14
    assert query_colours(["tool"] * 7 + ["phase"] * 7)[7:] == colours[:7]
    svg = svg_bytes(ribbon_figure(full_ribbon())).decode()
    assert all(f">{row} the surgeon carefully" in svg for row in range(1, 15))


@pytest.mark.parametrize("text", [LONG, "x" * 300, "", "a\nb\x00\x1b", "胆囊"])
def test_labels_of_any_text_fit_their_room_and_can_be_drawn(text):
    lines = label_lines(text, 27).split("\n")
    assert len(lines) <= 2
    assert max(len(line.replace(r"\$", "$")) for line in lines) <= 27
    ET.fromstring(svg_bytes(ribbon_figure(full_ribbon()._replace(names=[text or "-"] * 14))))


def test_thinning_moves_the_line_by_less_than_its_promise():
    x = np.linspace(0, 1, 10001)
    y = np.sqrt(x)
    keep = plots.thinned(x, y, most=100)
    assert len(keep) < 220
    assert (keep[0], keep[-1]) == (0, 10000)
    assert np.abs(np.interp(x, x[keep], y[keep]) - y).max() < 0.011


def result_with(own, prior, bounds):
    keys = ("AUROC", "AUPRC", "mAP@0.5")
    return {
        "macro": dict.fromkeys(keys, own),
        "controls": {"time prior": dict.fromkeys(keys, prior)},
        "minus_time_prior": dict.fromkeys(keys, bounds),
    }


@pytest.mark.parametrize(
    ("own", "bounds", "word", "is_beaten"),
    [
        (0.5, [-0.3, -0.1], "below the time prior", False),
        (0.65, [-0.1, 0.1], "not distinguishable from the time prior", False),
        (0.7, [-0.1, 0.3], "not distinguishable from the time prior", False),
        (0.9, [0.1, 0.3], "above the time prior", True),
        (0.9, None, "above the time prior", True),
        (0.5, None, "below the time prior", False),
    ],
)
def test_the_time_prior_is_compared_in_words(own, bounds, word, is_beaten):
    words = verdicts.against_time_prior(result_with(own, 0.68, bounds))
    assert ("does not beat the time prior" in words[0]) is not is_beaten
    assert sum(word in line for line in words) == 3
    assert all(("no interval" in line) is (bounds is None) for line in words[-3:])


def test_without_training_videos_there_is_no_time_prior_and_the_report_says_so():
    assert "No training videos" in verdicts.against_time_prior({"controls": {}, "macro": {}, "minus_time_prior": {}})[0]


def test_a_recording_without_truth_shows_ribbons_and_best_moments_only(tmp_path):
    known = corpus()
    alone = Made(tmp_path / "own", known._replace(moments={}, videos=known.videos[-1:]))
    assert alone.metrics["splits"] == {}
    assert "Best moments" in alone.page
    moment = max(alone.found.answers["similarity-only"][0].moments["Hook"], key=lambda one: one.score)
    assert f"{moment.score:.2f}" in Rows(alone.page).starting("video7")[0] + sum(
        Rows(alone.page).starting("video7"), []
    )
    assert {path.suffix for path in (alone.folder / "pictures").iterdir()} == {".svg", ".csv"}
    assert "det_mAP" not in alone.page
    for text in (alone.page, (alone.folder / "report.md").read_text()):
        assert "video99: no file" in text


def test_free_queries_without_truth_on_annotated_videos_show_best_moments(tmp_path):
    known = corpus()
    free = Made(tmp_path / "free", known._replace(queries=(Query("a clip", "a clip", "free"),)))
    assert "no scored video has any of these queries" in free.page
    assert "Best moments" in free.page


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


# --- several runs ---


def test_a_paired_interval_worked_by_hand():
    """Differences 0.1, 0, 0.2; the fourth draw is undefined. 2.5 % of three values lies 0.05 steps above the least."""
    draws = (np.array([0.1, 0.2, 0.3, np.nan]), np.array([0.2, 0.2, 0.5, 0.9]))
    found = paired(0.2, 0.3, draws)
    assert found.value == pytest.approx(0.1)
    assert found.bounds == pytest.approx((0.005, 0.195))
    assert found.excludes_zero
    assert paired(None, 0.3, draws).value is None
    assert paired(0.1, 0.2, (np.array([np.nan]), np.array([1.0]))).bounds is None


def test_the_gap_between_splits_does_not_pair_draws_that_have_nothing_in_common():
    """Equal replicates of two splits have a gap of 0 in every draw when paired; videos that differ vary."""
    values = np.random.default_rng(0).normal(size=4000)
    low, high = independent(0.0, 0.0, (values, values)).bounds
    assert (low, high) == pytest.approx((-1.96 * 2**0.5, 1.96 * 2**0.5), abs=0.15)


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


def test_a_gap_that_excludes_zero_is_said_in_words():
    fall = verdicts.of_gap("AUROC", ("val", 0.8), ("test", 0.6), Difference(-0.2, (-0.3, -0.1)))
    assert fall.startswith("AUROC falls from 80.0 % (val) to 60.0 % (test), gap −20.0 [−30.0, −10.0]: more than")
    assert "not distinguishable" in verdicts.of_gap("x", ("val", 0.8), ("test", 0.7), Difference(-0.1, (-0.3, 0.1)))


def test_a_run_without_bootstrap_has_values_and_no_intervals(made):
    """As with eval.bootstrap=0: no replicates, no intervals, no paired difference."""
    metrics = json.loads(json.dumps(made.metrics))
    for result in metrics["splits"].values():
        result["minus_time_prior"], result["intervals"] = {}, {}
        for track in result["tracks"].values():
            track["intervals"] = {}
    drawn = pictures.draw(metrics, made.found.answers["similarity-only"], corpus())
    page = html_report(metrics, texts={}, pictures=drawn, best={}, environment="", replicates={})
    assert "by its value (no interval)" in page
    assert "without an interval" in page
    assert isinstance(drawn, Pictures)


def test_videos_of_several_folders_never_share_a_picture():
    known = corpus()
    videos = tuple(
        video._replace(id=name) for video, name in zip(known.videos[2:4], ("a/b.mp4", "a_b.mp4"), strict=True)
    )
    answers = [
        Answer(one.video, one.times, one.duration, one.scores, {query.name: [] for query in QUERIES})
        for one in curves(known._replace(videos=videos))
    ]
    drawn = pictures.draw({"splits": {}}, answers, known._replace(videos=videos, moments={}))
    assert {one.name for one in drawn.ribbons.values()} == {"ribbon_a/b.mp4", "ribbon_a_b.mp4"}


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


def test_foreign_text_stays_text_in_the_short_report(made):
    text = (made.folder / "report.md").read_text()
    assert "<script>" not in text.split("## Environment")[0]
    assert markdown.plain("| `c` | [x](y)") == r"\| \`c\` \| \[x\](y)"
