"""The report of a fine-tuned run: how its weights came to be, and what val and test are worth beside each other."""

import csv
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from support.made_run import EVIL, Rows, compare, copy_of, corpus, curves, percent, run_in, section

from xclip_module.reporting.page import Pictures, html_report, markdown_report
from xclip_module.reporting.split_gap import trained_gap
from xclip_module.reporting.training_facts import running_mean
from xclip_module.reporting.training_picture import training_picture
from xclip_module.tasks.localisation.score import LocalisationScores

METRICS = ("AUROC", "AUPRC", "mAP@0.5", "R1@0.5", "mIoU")
# AUROC, AUPRC, mAP@0.5, R1@0.5, mIoU at steps 0, 20, 40.
VALUES = ((0.5, 0.2, 0.01, 0.05, 0.1), (0.7, 0.4, 0.123, 0.3, 0.25), (0.8, 0.45, 0.11, 0.31, 0.26))


def training(**changes):
    found = {
        "weights": "data/demo/model (1a2b3c)",
        "loss": "multi_positive",
        "batch_size": 64,
        "clips": 480,
        "videos": 6,
        "steps": 40,
        "epochs": 10.0,
        "best_step": 20,
        "end": "all steps",
        "monitor": "mAP@0.5",
        "chosen": "best",
        "seconds": 812.0,
        "is_cached": True,
        "curve": [{"step": s, "loss": 5.25 - s / 16, "floor": 1.5, "lr": s * 1e-6, "grad_norm": 0.9} for s in (10, 30)],
        "validations": [
            {"step": 20 * place, **dict(zip(METRICS, row, strict=True))} for place, row in enumerate(VALUES)
        ],
    }
    return {**found, **changes}


def last(**changes):
    return training(chosen="last (no val split)", best_step=None, validations=[], **changes)


class Report:
    """Both reports and the picture of made-up scores, as if their weights had been trained."""

    def __init__(self, made, found, splits=("val", "test")):
        kept = {name: result for name, result in made.metrics["splits"].items() if name in splits}
        self.metrics = {**made.metrics, "splits": kept, "training": found}
        drawn = training_picture(self.metrics)
        self.picture = {"training.svg": drawn.svg.decode(), **drawn.csv}
        self.page = html_report(
            self.metrics,
            texts={},
            pictures=Pictures([], {}, {}, drawn),
            best={},
            environment="",
            replicates=made.results.replicates,
        )
        self.text = markdown_report(self.metrics, answers="", environment="", pictures=["pictures/training.svg"])


@pytest.fixture(scope="module")
def tuned(made):
    return Report(made, training())


def judged(made, facts):
    scores = LocalisationScores(list(curves(corpus())), {}, {one.id: one.why for one in corpus().missing})
    return scores, made.judge(scores, facts)


def facts_of(page):
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", section(page, "training")))


def markdown_rows(text, heading):
    part = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:1] == "|"]


def test_what_training_was_stands_in_both_reports(tuned):
    shown = facts_of(tuned.page)
    assert {key: shown[key] for key in ("weights", "loss", "batch size", "steps", "best step", "epochs")} == {
        "weights": "data/demo/model (1a2b3c)",
        "loss": "multi_positive",
        "batch size": "64",
        "steps": "40",
        "best step": "20",
        "epochs": "10",
    }
    assert shown["time"] == "812 s (13:32 mm:ss)"
    assert shown["is cached"] == "yes"
    assert not {"curve", "validations"} & set(shown)
    for key, value in shown.items():
        assert f"- {key}: {value}".replace("_", r"\_") in tuned.text


def test_every_validation_is_a_row_and_the_kept_one_is_marked(tuned):
    part = section(tuned.page, "training")
    for step, row in zip((0, 20, 40), VALUES, strict=True):
        assert Rows(part).starting(f"step {step}") == [[percent(value) for value in row]]
    assert re.findall(r'<tr class="track"><th>(.*?)<small>(.*?)</small>', part) == [("step 20", "kept")]
    rows = markdown_rows(tuned.text, "Training")
    assert [row[0] for row in rows[2:]] == ["0 before training", "20 kept", "40"]
    assert [row[1:] for row in rows[2:]] == [[f"{value:.3f}" for value in row] for row in VALUES]
    words = "Val mAP@0.5 was 1.0 % before training and 12.3 % at step 20, the best of 3 validations"
    assert words in part
    assert words in tuned.text


def test_the_gap_is_test_minus_val(tuned):
    splits = tuned.metrics["splits"]
    for key in ("AUROC", "AUPRC", "lift", "mAP@0.5", "R1@0.5", "mIoU"):
        val, test = (splits[split]["macro"][key] for split in ("val", "test"))
        assert trained_gap(tuned.metrics)["test − val"][key] == test - val
        (head, _, *rows) = markdown_rows(tuned.text, "Val → test")
        shown = {row[0].strip("*"): row[head.index(key)] for row in rows}
        expected = [f"{val:.3f}", f"{test:.3f}", f"{test - val:+.3f}".replace("-", "−")]
        assert [shown["val"], shown["test"], shown["test − val"]] == expected
    found = Rows(section(tuned.page, "gap")).starting("test − val")[0]
    gaps = trained_gap(tuned.metrics)["test − val"]
    assert found[2] == f"{gaps['lift']:+.2f}".replace("-", "−")
    assert found[0].removesuffix(" *") == f"{100 * gaps['AUROC']:+.1f}".replace("-", "−")


def test_a_gap_worked_by_hand():
    keys = ("AUROC", "AUPRC", "lift", "mAP@0.5", "R1@0.5", "mIoU")

    def split(*values):
        macro = {**dict(zip(keys, values, strict=True)), "pairs_with_truth": 1}
        return {"macro": macro, "tracks": {"similarity-only": {"macro": macro}}}

    splits = {"val": split(0.75, 0.5, 2.5, 0.25, None, 0.5), "test": split(0.5, 0.5, 2.0, 0.375, 0.5, None)}
    metrics = {"track": "similarity-only", "splits": splits, "training": training()}
    assert list(trained_gap(metrics)["test − val"].values()) == [-0.25, 0.0, -0.5, 0.125, None, None]
    assert trained_gap({**metrics, "splits": {"test": splits["test"]}}) == {}
    assert trained_gap({key: value for key, value in metrics.items() if key != "training"}) == {}


def test_the_reader_is_told_that_val_chose_and_test_did_not(tuned):
    words = (
        "Val chose the checkpoint (the best mAP@0.5 of 3 validations), so that its numbers are optimistic; test was "
        "looked at once, with the chosen weights."
    )
    assert words in section(tuned.page, "gap")
    assert words in tuned.text


def test_a_run_without_training_reports_as_before(made):
    page, text = made.page, (made.folder / "report.md").read_text()
    assert made.metrics["title"] == "Zero-shot localisation: made up"
    assert "training" not in made.metrics
    for found in (page, text):
        assert "Val → test" not in found
        assert "chose the checkpoint" not in found
    assert 'id="training"' not in page
    assert "## Training" not in text
    assert not list((made.folder / "pictures").glob("training*"))


def test_the_run_folder_of_trained_weights(made, tmp_path):
    """The made-up run begins with random weights: trained ones are called neither random nor zero-shot."""
    scores, results = judged(made, training())
    made.write(scores, results, run_in(tmp_path))
    assert json.loads((tmp_path / "metrics.json").read_text())["training"] == training()
    names = {path.name for path in (tmp_path / "pictures").glob("training*")}
    assert names == {"training.svg", "training.csv", "training.validations.csv"}
    page, text = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert "<h1>Fine-tuned: made up</h1>" in page
    assert "<code>pictures/training.csv</code>" in section(page, "training")
    assert text.index("(pictures/training.svg)") < text.index("## val")
    assert text.count("(pictures/training.svg)") == 1
    assert "expect chance" in made.page
    assert "expect chance" not in page
    weights = made.metrics["protocol"]["weights"]
    assert results.metrics["protocol"]["weights"] == weights.replace(" (", ", fine-tuned (")


def test_training_in_vain_is_said_and_leaves_random_weights_random(made):
    vain = Report(made, training(best_step=0))
    words = "No validation had a better val mAP@0.5 than the weights from before training (1.0 %)"
    assert words in vain.page
    assert words in vain.text
    assert "0 before training, kept" in vain.text
    metrics = judged(made, training(best_step=0))[1].metrics
    assert metrics["untrained"]
    assert metrics["protocol"] == made.metrics["protocol"]


def test_without_a_val_split_the_last_step_is_kept_and_nothing_is_compared(made):
    alone = Report(made, last(), splits=("test",))
    for found in (alone.page, alone.text):
        assert "The weights of the last step, 40, were kept" in found
        assert "Val → test" not in found
        assert "chose the checkpoint" not in found
    assert facts_of(alone.page)["best step"] == "–"
    assert set(alone.picture) == {"training.svg", "training.csv"}


def test_unknown_numbers_are_dashes_and_gaps(made):
    """A skipped step has no loss; a metric may be undefined; a loss may have no floor."""
    lines = [dict.fromkeys(("loss", "floor", "lr", "grad_norm")) | {"step": step} for step in (10, 20, 30)]
    lines[1]["loss"] = 2.5
    checks = [{"step": 0, **dict.fromkeys(METRICS)}, {"step": 20, **dict.fromkeys(METRICS), "mAP@0.5": 0.25}]
    bare = Report(made, training(curve=lines, validations=checks, seconds=None))
    assert Rows(section(bare.page, "training")).starting("step 20") == [["–", "–", "25.0", "–", "–"]]
    assert "was – % before training and 25.0 %" in bare.text
    assert facts_of(bare.page)["seconds"] == "–"
    drawn = bare.picture
    assert drawn["training.csv"].splitlines()[1:3] == ["10,,,,,,", "20,2.5,,,,2.5,"]
    assert "floor of the loss" not in drawn["training.svg"]
    assert "AUROC" not in drawn["training.svg"]


def test_foreign_text_stays_text(made):
    evil = Report(made, training(weights=f"{EVIL} | `x` [a](b)", **{f"note {EVIL}": EVIL}))
    assert "<script" not in evil.page
    assert "<script" not in evil.text.split("## val")[0]
    assert r"\| \`x\` \[a\](b)" in evil.text
    assert f"<dd>{EVIL.replace('&', '&amp;')}" not in evil.page


def test_the_picture_and_its_numbers(tuned):
    drawn = tuned.picture
    assert set(drawn) == {"training.svg", "training.csv", "training.validations.csv"}
    rows = list(csv.DictReader(drawn["training.csv"].splitlines()))
    assert [(float(row["step"]), float(row["loss"]), float(row["floor"])) for row in rows] == [
        (10, 4.625, 1.5),
        (30, 3.375, 1.5),
    ]
    checks = list(csv.DictReader(drawn["training.validations.csv"].splitlines()))
    assert [[float(row[key]) for key in METRICS] for row in checks] == [list(row) for row in VALUES]
    texts = " ".join(element.text or "" for element in ET.fromstring(drawn["training.svg"]).iter())
    for words in ("floor of the loss", "loss (nats)", "learning rate", "kept step", "val before training", "3 videos"):
        assert words in texts
    assert "480 clips of 6 videos, 40 steps; the weights of step 20 were kept" in texts
    assert "mAP@0.5 (%), chose the step" in texts
    assert "1.0 → 12.3" in texts
    assert "(pictures/training.svg)" in tuned.text.split("## val")[0]


def many(lines, checks):
    rng = np.random.default_rng(0)
    rows = [{"step": step, "loss": 2 + rng.normal(), "floor": 1.0, "lr": 1e-4} for step in range(1, lines + 1)]
    every = lines // (checks - 1)
    watched = [{"step": every * place, **dict.fromkeys(METRICS, place / checks)} for place in range(checks)]
    return training(curve=rows, validations=watched, steps=lines, best_step=every * 5)


def test_a_long_run_stays_readable(made):
    """Thousands of noisy lines: a running mean before them, a small file, and a table of some validations."""
    long = Report(made, many(20000, 101))
    svg = long.picture["training.svg"]
    assert len(svg) < 500_000
    assert "mean of 501 logged steps" in svg
    labels = [row[0] for row in Rows(section(long.page, "training")).rows if row[0].startswith("step ")]
    assert len(labels) <= 13
    assert {"step 0", "step 1000", "step 20000"} <= set(labels)
    assert "all of them are in pictures/training.validations.csv" in long.page
    assert len(long.picture["training.validations.csv"].splitlines()) == 102


def test_a_run_that_logged_no_step_has_no_picture():
    metrics = {"training": training(curve=[], steps=0, best_step=0), "splits": {}}
    assert training_picture(metrics) is None


@pytest.mark.parametrize(("length", "window"), [(1, 1), (1, 5), (7, 3), (40, 9)])
def test_the_running_mean_is_the_mean_of_what_is_known_around(length, window):
    values = np.random.default_rng(length).normal(size=length)
    values[::4] = np.nan
    half = window // 2
    for place, mean in enumerate(running_mean(values, window)):
        around = values[max(0, place - half) : place + half + 1]
        known = around[~np.isnan(around)]
        assert mean == pytest.approx(known.mean() if len(known) else np.nan, nan_ok=True)


def test_a_trained_run_beside_an_untrained_one(made, tmp_path):
    def trained(name, **changes):
        return copy_of(made, tmp_path / name, change=lambda metrics: metrics.update(training=training(**changes)))

    first, second = trained("second"), trained("third", loss="infonce")
    assert compare(made.folder, first, second, output=tmp_path) == 0
    page = (tmp_path / "comparison.html").read_text()
    assert Rows(page).starting("training: loss") == [["–", "multi_positive", "infonce"]]
    assert Rows(page).starting("training: best step") == [["–", "20", "20"]]
    assert '<tr class="track"><th>training: best step' in page
    assert compare(first, second, output=tmp_path) == 0
    page = (tmp_path / "comparison.html").read_text()
    assert '<tr class="track"><th>training: loss' in page
    assert "<tr><th>training: best step" in page
