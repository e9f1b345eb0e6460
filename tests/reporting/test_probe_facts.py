"""The report of a linear probe: what was probed, how λ was chosen, and what few training videos would have reached."""

import csv
import re
import xml.etree.ElementTree as ET

import pytest
from support.made_run import EVIL, Made, Rows, corpus, run_in, section

from xclip_module.reporting import probe_facts, tables
from xclip_module.reporting.page import Pictures, html_report, markdown_report
from xclip_module.reporting.probe_pictures import probe_pictures
from xclip_module.tasks.localisation.score import LocalisationScores

MONITOR = "AUPRC"
# Number of training videos, draw, AUROC and mAP@0.5 of test; AUPRC of test is a quarter wherever it is known.
DRAWS = ((1, 0, 0.5, 0.0), (1, 1, 0.75, 0.25), (1, 2, 0.625, 0.125), (4, 0, 0.875, None))


def swept(strength, train, val, steps=100):
    return {"lambda": strength, "train": train, "val": val, "steps": steps}


def head(kind, strength, rows, classes, **changes):
    best = next((row["val"] for row in rows if row["lambda"] == strength), None)
    names = ("name", "windows", "videos", "known")
    found = {"kind": kind, "form": f"{len(classes)} outputs", "lambda": strength, "best": best, "sweep": rows}
    return {**found, "classes": [dict(zip(names, one, strict=True)) for one in classes], **changes}


def phase_head(**changes):
    # In the order tried, which is not ascending.
    rows = [swept(1.0, 0.9, 0.5), swept(100.0, 0.6, 0.25, 20), swept(10.0, 0.75, 0.625, 50)]
    return head("phase", 10.0, rows, [("preparation", 4100, 4, True), ("packaging", 300, 3, True)], **changes)


def tool_head(**changes):
    rows = [swept(10.0, 0.5, 0.375), swept(31.6227766, 0.4, None, None)]
    return head("tool", 10.0, rows, [("hook", 2000, 4, True), ("bag", 0, 0, False)], **changes)


def shot(shots, draw, auroc, detection):
    test = {"AUROC": auroc, "AUPRC": 0.25, "prevalence": 0.125, "mAP@0.5": detection}
    # Val, beside it, is known of the first draws only.
    val = {"AUROC": 0.5 if draw == 0 else None, "AUPRC": None, "prevalence": 0.2, "mAP@0.5": 0.5}
    videos = [f"video{place:02d}" for place in range(shots)]
    return {
        "shots": shots,
        "draw": draw,
        "videos": videos,
        "lambda": {"phase": 10.0},
        "splits": {"val": val, "test": test},
    }


def few_shot():
    return {"shots": [1, 4], "draws": 3, "rows": [shot(*one) for one in reversed(DRAWS)]}


def temporal(**changes):
    curve = [
        {"epoch": 1, "loss": 2.0, "val": 0.5},
        {"epoch": 2, "loss": None, "val": 0.75},
        {"epoch": 3, "loss": 0.5, "val": None},
    ]
    found = {"what": "offline TCN, 2x8 layers", "is_causal": False, "parameters": 240000, "epochs": 3, "best_epoch": 2}
    return {**found, "best": 0.75, "seconds": 40.4, "curve": curve, **changes}


def probe(**changes):
    found = {
        "features": "mean of 16 normalised frame features, 512 wide",
        "windows": 4400,
        "videos": 4,
        "stride_seconds": 1.0,
        "balance": "every class weighs the same",
        "solver": "L-BFGS (torch)",
        "refit": "train",
        "monitor": MONITOR,
        "chosen_on": "val, 8 videos",
        "seconds": 93.2,
        "left out": "no training video",
        "heads": [phase_head(), tool_head()],
        "temporal": temporal(),
        "few_shot": few_shot(),
    }
    return {**found, **changes}


def blind(**changes):
    """No val video: nothing chose λ."""
    rows = [swept(1.0, 0.9, None)]
    return probe(heads=[head("phase", 1.0, rows, [("hook", 9, 1, True)])], chosen_on="nothing: no val video", **changes)


class Report:
    """Both reports and the pictures of made-up scores, as if a probe had made them."""

    def __init__(self, made, found):
        self.metrics = {**made.metrics, "probe": found}
        drawn = probe_pictures(self.metrics)
        self.svg = {one.name: one.svg.decode() for one in drawn}
        self.csv = {name: list(csv.DictReader(text.splitlines())) for one in drawn for name, text in one.csv.items()}
        shown = Pictures([], {}, {}, None, drawn)
        draws = made.results.replicates
        self.page = html_report(self.metrics, texts={}, pictures=shown, best={}, environment="", replicates=draws)
        self.part = section(self.page, "probe")
        paths = [f"pictures/{one.name}.svg" for one in drawn]
        self.text = markdown_report(self.metrics, answers="", environment="", pictures=paths)

    def facts(self):
        return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", self.part))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One video of a split, one phase and one tool: what is shown of more is tested with the page as a whole."""
    known = corpus()
    one_each = {video.split: video for video in known.videos}
    few = known._replace(videos=tuple(one_each.values()), queries=known.queries[::3])
    return Made(tmp_path_factory.mktemp("made") / "zero", few)


@pytest.fixture(scope="module")
def probed(made):
    return Report(made, probe())


def words_of(svg):
    return " ".join(element.text or "" for element in ET.fromstring(svg).iter())


def small_print(part, label):
    """The small print below each cell of a row."""
    row = next(row for row in re.findall(r"<tr.*?</tr>", part, re.DOTALL) if f">{label}<" in row)
    return [re.findall(r"<small>(.*?)</small>", cell) for cell in re.findall(r"<td>(.*?)</td>", row, re.DOTALL)]


def test_what_the_probe_was_stands_in_both_reports(probed):
    shown = probed.facts()
    assert shown["features"] == "mean of 16 normalised frame features, 512 wide"
    assert shown["windows"] == "4400"
    assert shown["time"] == "93 s (01:33 mm:ss)"
    assert shown["left out"] == "no training video"
    assert shown["phase head"] == "2 outputs; λ = 10, val AUPRC 62.5 %"
    assert shown["temporal head"] == (
        "offline TCN, 2x8 layers; sees the whole video, past and future; 240000 parameters"
    )
    assert shown["temporal training"] == "3 epochs, 40 s; the best epoch was 2, val AUPRC 75.0 %"
    assert not {"heads", "temporal", "few shot", "few_shot"} & set(shown)
    for key, value in shown.items():
        assert f"- {key}: {value}" in probed.text


def test_the_reader_is_told_what_chose_lambda_and_that_val_is_optimistic(probed):
    words = "λ = 10 (phase) and 10 (tool) was chosen on val, 8 videos, by AUPRC, so that numbers of val are optimistic."
    for found in (probed.part, probed.text):
        assert words in found
        assert "trained on 4400 windows of 4 videos." in found
        assert "the heads were trained again" not in found
    again = " ".join(probe_facts.in_words(probe(refit="train+val")))
    assert "optimistic; with it the heads were trained again on train+val." in again


def test_classes_that_could_not_be_learned_are_named(probed):
    sentence = "Nothing to learn of bag (tool): in no training window, or in every one."
    assert sentence in probed.part
    assert sentence in probed.text
    assert "(phase): in no training window" not in probed.part
    rows = Rows(probed.part)
    assert rows.starting("preparation") == [["4100", "4"]]
    assert rows.starting("bag") == [["0", "0"]]
    assert "<th>bag<small>tool; nothing to learn, constant scores</small></th>" in probed.part


@pytest.mark.parametrize(("strength", "said"), [(1.0, "smallest"), (10.0, ""), (100.0, "largest")])
def test_a_lambda_at_an_end_of_what_was_tried_is_a_warning(strength, said):
    heads = [phase_head(**{"lambda": strength})]
    beyond = {"smallest": "smaller", "largest": "larger"}
    expected = [
        f"The chosen λ of the phase head, {strength:g}, is the {end} of those tried (1 to 100): a {beyond[end]} one "
        "may do better."
        for end in ([said] if said else [])
    ]
    assert probe_facts.cautions(probe(heads=heads)) == expected


def test_a_warning_stands_out_in_both_reports(made):
    found = probe(heads=[phase_head(**{"lambda": 100.0})], temporal=None, few_shot=None)
    report, (line,) = Report(made, found), probe_facts.cautions(found)
    assert f'<p class="warn">{line}</p>' in report.part
    assert f"**{line}**" in report.text


def test_one_lambda_or_no_choice_is_no_end_of_a_range():
    alone = head("phase", 1.0, [swept(1.0, 0.5, 0.5)], [])
    assert probe_facts.cautions(probe(heads=[alone])) == []
    unchosen = phase_head(**{"lambda": 1.0, "best": None})
    assert probe_facts.cautions(probe(heads=[unchosen], chosen_on="nothing: no val video")) == []


def test_the_sweep_is_a_row_per_lambda_ascending_and_the_chosen_one_marked(probed):
    table = probe_facts.sweep_table(probe())
    assert [row.label for row in table.rows] == ["1", "10", "31.62", "100"]
    rows = Rows(probed.part)
    assert rows.starting("1") == [["90.0", "50.0", "100", "", "", ""]]
    assert rows.starting("10") == [["75.0", "62.5", "50", "50.0", "37.5", "100"]]
    assert rows.starting("31.62") == [["", "", "", "40.0", "–", "–"]]
    assert [row.label for row in table.rows if row.kind] == ["10"]
    assert small_print(probed.part, "10") == [[], ["chosen"], [], [], ["chosen"], []]
    assert sum(cell.below == ("chosen",) for row in table.rows for cell in row.cells) == 2


def test_mean_and_range_over_draws_worked_by_hand(probed):
    """One video: AUROC 0.5, 0.75, 0.625; all four: a single draw, and no detection."""
    rows = Rows(probed.part)
    assert rows.starting("1 video") == [["3", "50.0", "–", "50.0", "62.5", "25.0", "12.5"]]
    assert rows.starting("4 videos") == [["1", "50.0", "–", "50.0", "87.5", "25.0", "–"]]
    assert small_print(probed.part, "1 video") == [
        *([], ["of 1 draw"], [], ["[50.0, 50.0]"]),
        *(["[50.0, 75.0]"], ["[25.0, 25.0]"], ["[0.0, 25.0]"]),
    ]
    assert small_print(probed.part, "4 videos") == [[]] * 7
    assert "<th>4 videos<small>all training videos</small></th>" in probed.part
    for words in ("range over draws", "of 3 draws holds the median over all possible ones with 75.0 % probability"):
        assert words in probed.part


def test_chance_and_the_time_prior_stand_beside_the_draws(probed):
    for note in ("test, chance 50.0", "test, chance 12.5", "val, chance 20.0", "<small>test</small>"):
        assert note in probed.part
    splits = probed.metrics["splits"]
    prior = [
        splits[split]["controls"]["time prior"][key]
        for split in ("val", "test")
        for key in ("AUROC", "AUPRC", "mAP@0.5")
    ]
    assert Rows(probed.part).starting("time prior") == [["", *map(tables.number, prior)]]
    levels = {(row["split"], row["metric"]): row for row in probed.csv["learning_curve.levels.csv"]}
    for place, key in enumerate(
        (split, metric) for split in ("val", "test") for metric in ("AUROC", "AUPRC", "mAP@0.5")
    ):
        assert float(levels[key]["time prior"]) == pytest.approx(prior[place], rel=1e-5)
    assert [levels["test", metric]["chance"] for metric in ("AUROC", "AUPRC", "mAP@0.5")] == ["0.5", "0.125", ""]


def test_the_numbers_beside_the_sweep_are_those_of_metrics_json(probed):
    rows = [tuple(row.values()) for row in probed.csv["probe_sweep.csv"]]
    assert rows == [
        ("phase", "1", "0.9", "0.5", "100", "0"),
        ("phase", "100", "0.6", "0.25", "20", "0"),
        ("phase", "10", "0.75", "0.625", "50", "1"),
        ("tool", "10", "0.5", "0.375", "100", "1"),
        ("tool", "31.6228", "0.4", "", "", "0"),
    ]
    words = words_of(probed.svg["probe_sweep"])
    for part in (
        "phase: 2 outputs",
        "λ = 10, val AUPRC 62.5 %",
        "train",
        "val",
        "chosen λ",
        "4400 windows of 4 videos",
    ):
        assert part in words


def test_the_numbers_beside_the_learning_curve_are_every_draw_and_their_mean(probed):
    draws = {(row["training videos"], row["draw"], row["split"]): row for row in probed.csv["learning_curve.csv"]}
    assert len(draws) == 8
    assert draws["1", "1", "test"]["AUROC"] == "0.75"
    assert draws["1", "1", "val"]["AUROC"] == ""
    assert draws["4", "0", "test"]["videos"] == "video00; video01; video02; video03"
    assert draws["4", "0", "test"]["lambda phase"] == "10"
    found = {
        (row["training videos"], row["split"], row["metric"]): [*row.values()][3:]
        for row in probed.csv["learning_curve.means.csv"]
    }
    assert found["1", "test", "AUROC"] == ["0.625", "0.5", "0.75", "3", "3"]
    assert found["1", "test", "mAP@0.5"] == ["0.125", "0", "0.25", "3", "3"]
    assert found["1", "val", "AUROC"] == ["0.5", "0.5", "0.5", "1", "3"]
    assert found["4", "test", "mAP@0.5"] == ["", "", "", "0", "1"]
    words = words_of(probed.svg["learning_curve"])
    for part in ("training videos", "one draw", "range over draws", "time prior", "chance", "val: 1 video"):
        assert part in words


def test_the_numbers_beside_the_temporal_head_are_its_epochs(probed):
    rows = [tuple(row.values()) for row in probed.csv["probe_temporal.csv"]]
    assert rows == [("1", "2", "0.5"), ("2", "", "0.75"), ("3", "0.5", "")]
    words = words_of(probed.svg["probe_temporal"])
    for part in ("epoch 2 was kept", "training loss", "val AUPRC", "kept epoch"):
        assert part in words


def test_without_a_val_video_nothing_is_called_chosen_or_optimistic(made):
    report = Report(made, blind(temporal=None, few_shot=None))
    for found in (report.part, report.text):
        assert "λ = 1 (phase) was chosen on nothing: no val video." in found
        assert "optimistic" not in found
    assert report.facts()["phase head"] == "1 outputs; λ = 1, val AUPRC –"
    assert Rows(report.part).starting("1") == [["90.0", "–", "100"]]


def test_unknown_numbers_are_dashes_and_gaps(made):
    unknown = dict.fromkeys(("windows", "videos", "stride_seconds", "seconds"))
    lost = dict.fromkeys(("parameters", "epochs", "best_epoch", "best", "seconds"))
    rows = [swept(1.0, None, None, None), swept(2.0, None, None, None)]
    heads = [head("phase", None, rows, [("hook", None, None, True)])]
    bare = [{"epoch": epoch, "loss": None, "val": None} for epoch in (1, 2)]
    draws = {
        **few_shot(),
        "rows": [
            {**one, "splits": {"test": dict.fromkeys(("AUROC", "AUPRC", "prevalence", "mAP@0.5"))}}
            for one in few_shot()["rows"]
        ],
    }
    report = Report(made, probe(heads=heads, temporal=temporal(curve=bare, **lost), few_shot=draws, **unknown))
    shown = report.facts()
    assert shown["windows"] == shown["seconds"] == "–"
    assert shown["phase head"] == "1 outputs; λ = –, val AUPRC –"
    assert shown["temporal training"] == "– epochs, – s; the best epoch was –, val AUPRC –"
    rows = Rows(report.part)
    assert rows.starting("hook") == [["–", "–"]]
    assert rows.starting("2") == [["–", "–", "–"]]
    assert rows.starting("1 video") == [["3", "–", "–", "–"]]
    # Nothing to be drawn: no picture of empty axes.
    assert set(report.svg) == {"probe_sweep", "probe_temporal"}


def test_what_was_not_done_has_neither_table_nor_picture(made):
    report = Report(made, probe(temporal=None, few_shot=None))
    assert set(report.svg) == {"probe_sweep"}
    assert "temporal head" not in report.facts()
    assert "range over draws" not in report.part
    empty = Report(made, probe(heads=[], temporal=temporal(curve=[]), few_shot={"shots": [], "draws": 0, "rows": []}))
    assert empty.svg == {}


def test_foreign_text_stays_text(made):
    """Names of classes, splits' videos and whatever describes the run are not ours."""
    evil = f"{EVIL} | `x` [a](b) $1$"
    classes = [(evil, 1, 1, False)]
    strange = head("phase", 1.0, [swept(1.0, 0.5, 0.5)], classes, form=evil)
    report = Report(
        made, probe(heads=[strange], features=evil, chosen_on=evil, temporal=temporal(what=evil), solver=evil)
    )
    assert "<script" not in report.page
    assert "&lt;script&gt;" in report.part
    assert "<script" not in report.text.split("## val")[0]
    assert r"\| \`x\` \[a\](b)" in report.text
    for svg in report.svg.values():
        assert "script" not in {element.tag.split("}")[1] for element in ET.fromstring(svg).iter()}


def test_a_run_without_a_probe_reports_as_before(made):
    text = (made.folder / "report.md").read_text()
    assert 'id="probe"' not in made.page
    assert "Linear probe" not in made.page
    assert "## Linear probe" not in text
    assert probe_pictures(made.metrics) == []
    assert not list((made.folder / "pictures").glob("probe*"))


def test_the_run_folder_of_a_probe(made, tmp_path):
    metrics = {**made.metrics, "probe": probe()}
    tracks = metrics["splits"]["test"]["tracks"]
    split = {**metrics["splits"]["test"], "tracks": {**tracks, "+temporal": tracks["similarity-only"]}}
    # No answers: the pictures of each video are tested elsewhere.
    silent = dict.fromkeys(made.results.answers, [])
    results = made.results._replace(metrics={**metrics, "splits": {"test": split}}, answers=silent)
    made.write(LocalisationScores([], {}, {}), results, run_in(tmp_path))
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    for name in ("probe_sweep", "learning_curve", "probe_temporal"):
        assert {f"{name}.svg", f"{name}.csv"} <= names
    page, text = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    part = section(page, "probe")
    for name in re.findall(r"<code>pictures/(.*?)</code>", part):
        assert name in names
    assert "<code>pictures/learning_curve.means.csv</code>" in part
    assert text.index("## Linear probe") < text.index("(pictures/learning_curve.svg)") < text.index("## test")
    assert text.count("(pictures/learning_curve.svg)") == 1
    assert tables.TRACKS["+temporal"] in page
    assert '<h2 id="overview">' in page
