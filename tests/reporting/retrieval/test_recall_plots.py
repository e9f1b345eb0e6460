"""Pictures of retrieval show the numbers that they were given."""

import csv
import io

import numpy as np
import pytest
from matplotlib.container import BarContainer

from xclip_module.evaluation.retrieval import chance, ranks, recall_at
from xclip_module.reporting.chart import svg_bytes
from xclip_module.reporting.retrieval.recall_plots import (
    RecallCurve,
    rank_csv,
    rank_edges,
    rank_figure,
    recall_csv,
    recall_figure,
    recall_points,
)


def recalls(points, texts=120, videos=40):
    """Both directions of made-up scores, at the points that the picture asks for."""
    rng = np.random.default_rng(0)
    owner = np.arange(texts) % videos
    similarity = rng.standard_normal((texts, videos))
    similarity[np.arange(texts), owner] += 1.5
    found, made = ranks(similarity, owner), []
    for direction, places in (("t2v", found.t2v), ("v2t", found.v2t)):
        ks = points(videos)
        expected = chance(owner, videos, ks=ks)
        levels = np.array([expected[f"{direction}/R@{k}"] for k in ks])
        made.append(RecallCurve(direction, ks, recall_at(places, ks), levels, len(places), videos))
    return made, found


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_curve_shows_every_recall_and_chance_in_percent():
    curves, _ = recalls(recall_points)
    figure = recall_figure(curves, title="Recall")
    lines = figure.axes[0].get_lines()
    for index, curve in enumerate(curves):
        drawn, expected = lines[2 * index], lines[2 * index + 1]
        np.testing.assert_allclose(drawn.get_xdata(), curve.ks)
        np.testing.assert_allclose(drawn.get_ydata(), 100 * curve.values)
        np.testing.assert_allclose(expected.get_ydata(), 100 * np.array(curve.ks) / 40)
        assert expected.get_linestyle() == "--"
    written = {text.get_text() for text in figure.axes[0].texts}
    at = [dict(zip(curve.ks, curve.values, strict=True)) for curve in curves]
    assert written == {f"{100 * values[k]:.1f}" for values in at for k in (1, 5, 10)}
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["text → video, n=120 among 40", "video → text, n=40 among 40", "chance"]


def test_the_bars_add_up_to_the_recalls_of_the_tables():
    bars, found = recalls(rank_edges)
    figure = rank_figure(bars, title="Ranks")
    for axes, places in zip(figure.axes, (found.t2v, found.v2t), strict=True):
        heights = next([bar.get_height() for bar in part] for part in axes.containers if isinstance(part, BarContainer))
        shown = [text.get_text() for text in axes.get_xticklabels()]
        assert shown == ["1", "2", "3–5", "6–10", "11–20", "21–40"]
        assert np.cumsum(heights)[[0, 2, 3]] == pytest.approx(100 * recall_at(places, (1, 5, 10)))
        assert sum(heights) == pytest.approx(100)


def test_the_csv_files_hold_the_numbers_behind_the_pictures():
    curves, _ = recalls(recall_points)
    table = rows(recall_csv(curves))
    assert len(table) == sum(len(curve.ks) for curve in curves)
    assert [float(row["R@K"]) for row in table if row["direction"] == "v2t"] == pytest.approx(
        curves[1].values, abs=1e-6
    )
    bars, found = recalls(rank_edges)
    for direction, places in (("t2v", found.t2v), ("v2t", found.v2t)):
        own = [row for row in rows(rank_csv(bars)) if row["direction"] == direction]
        for row in own:
            within = (places + 1 >= int(row["first rank"])) & (places + 1 <= int(row["last rank"]))
            assert int(row["queries"]) == within.sum()
            assert float(row["share"]) == pytest.approx(within.mean(), abs=1e-6)
        assert sum(float(row["chance"]) for row in own) == pytest.approx(1)


@pytest.mark.parametrize("candidates", [1, 2, 3, 10, 11, 670, 4917])
def test_points_and_edges_run_from_the_first_rank_to_the_last(candidates):
    for points in (recall_points(candidates), rank_edges(candidates)):
        assert points[0] == 1
        assert points[-1] == candidates
        assert points == sorted(set(points))
        assert {k for k in (1, 5, 10) if k <= candidates} <= set(points)
    assert len(recall_points(candidates)) <= 100


@pytest.mark.parametrize("videos", [1, 1000])
def test_small_and_large_pictures_are_drawn_and_the_same_twice(videos):
    for draw, points in ((recall_figure, recall_points), (rank_figure, rank_edges)):
        pictures = [svg_bytes(draw(recalls(points, videos, videos)[0], title="$5 & <b>")) for _ in range(2)]
        assert pictures[0] == pictures[1]
