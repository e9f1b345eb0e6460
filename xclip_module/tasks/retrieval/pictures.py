"""The pictures of a retrieval run: from scores to arrays that the reporting room draws.

N texts, V videos, E points of a curve.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from xclip_module.evaluation.retrieval import BEST_CAPTION, chance, ranks, recall_at
from xclip_module.reporting.chart import Chart, chart_of
from xclip_module.reporting.retrieval import recall_plots
from xclip_module.reporting.retrieval.recall_plots import RecallCurve


def retrieval_pictures(similarity: Any, text_to_video: Any, split: str, *, protocol: str = BEST_CAPTION) -> list[Chart]:
    """ "recall_<split>" and "ranks_<split>" with their numbers.

    similarity: [N, V].  text_to_video: [N].  protocol: of video → text, as for `evaluation.retrieval.ranks`.
    """
    recalls = partial(_recalls, similarity, np.asarray(text_to_video), protocol)
    size = "{} texts, {} videos".format(*np.shape(similarity))
    curves, bars = recalls(recall_plots.recall_points), recalls(recall_plots.rank_edges)
    titles = (f"Recall among the first K, {split}: {size}", f"Where the own item stands, {split}: {size}")
    recall, rank = recall_plots.recall_figure, recall_plots.rank_figure
    return [
        chart_of(f"recall_{split}", titles[0], recall(curves, title=titles[0]), {"": recall_plots.recall_csv(curves)}),
        chart_of(f"ranks_{split}", titles[1], rank(bars, title=titles[1]), {"": recall_plots.rank_csv(bars)}),
    ]


def _recalls(similarity: Any, owner: np.ndarray, protocol: str, points: Callable[[int], list]) -> list[RecallCurve]:
    """Both directions; points: the choice of K [E] for so many candidates."""
    texts, videos = np.shape(similarity)
    ranked = ranks(similarity, owner, protocol=protocol)
    of_video = len(ranked.videos) if protocol == BEST_CAPTION else texts
    curves = []
    for direction, places, candidates in (("t2v", ranked.t2v, videos), ("v2t", ranked.v2t, of_video)):
        ks = points(candidates)
        expected = chance(owner, videos, ks=ks, protocol=protocol)
        levels = np.array([expected[f"{direction}/R@{k}"] for k in ks])
        curves.append(RecallCurve(direction, ks, recall_at(places, ks), levels, len(places), candidates))
    return curves
