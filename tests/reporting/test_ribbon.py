"""A video at a glance: what its ribbon shows, and that any text and any number of queries fit."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from support.made_run import LONG, QUERIES, corpus, read_csv

from xclip_module.reporting.chart import label_lines, svg_bytes
from xclip_module.reporting.figures import query_colours
from xclip_module.reporting.ribbon import Ribbon, ribbon_figure
from xclip_module.tasks.localisation import pictures


def test_the_numbers_beside_a_ribbon_are_the_scores_and_segments(made):
    answer = next(one for one in made.results.answers["similarity-only"] if one.video == "video7")
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


def test_the_ribbon_says_which_phase_was_true_and_which_was_predicted(made):
    known = corpus()
    answer = next(one for one in made.results.answers["similarity-only"] if one.video == "video7")
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


def test_forty_videos_of_noise_stay_below_15_mb():
    """Noise is the worst case: the prediction changes at nearly every sample."""
    size = len(svg_bytes(ribbon_figure(full_ribbon())))
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
