"""Curves show the numbers of metrics.json."""

import numpy as np
import pytest
from support.made_run import read_csv

from xclip_module.reporting import plots


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


def test_thinning_moves_the_line_by_less_than_its_promise():
    x = np.linspace(0, 1, 10001)
    y = np.sqrt(x)
    keep = plots.thinned(x, y, most=100)
    assert len(keep) < 220
    assert (keep[0], keep[-1]) == (0, 10000)
    assert np.abs(np.interp(x, x[keep], y[keep]) - y).max() < 0.011
