"""The page of a run: right numbers, safe, self-contained, the same twice."""

import base64
import html.parser
import json
import re
import xml.etree.ElementTree as ET

import pytest
from support.made_run import QUERIES, Made, Rows, corpus, curves, percent, section

from xclip_module.interface import Answer, Query
from xclip_module.reporting import tables
from xclip_module.reporting.page import Pictures, html_report
from xclip_module.reporting.template import plain
from xclip_module.tasks.localisation import pictures


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


def test_a_recording_without_truth_shows_ribbons_and_best_moments_only(tmp_path):
    known = corpus()
    alone = Made(tmp_path / "own", known._replace(moments={}, videos=known.videos[-1:]))
    assert alone.metrics["splits"] == {}
    assert "Best moments" in alone.page
    moment = max(alone.results.answers["similarity-only"][0].moments["Hook"], key=lambda one: one.score)
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


def test_a_run_without_bootstrap_has_values_and_no_intervals(made):
    """As with eval.bootstrap=0: no replicates, no intervals, no paired difference."""
    metrics = json.loads(json.dumps(made.metrics))
    for result in metrics["splits"].values():
        result["minus_time_prior"], result["intervals"] = {}, {}
        for track in result["tracks"].values():
            track["intervals"] = {}
    drawn = pictures.draw(metrics, made.results.answers["similarity-only"], corpus())
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


def test_foreign_text_stays_text_in_the_short_report(made):
    text = (made.folder / "report.md").read_text()
    assert "<script>" not in text.split("## Environment")[0]
    assert plain("| `c` | [x](y)") == r"\| \`c\` \| \[x\](y)"
