"""The pictures of a retrieval run: from scores to arrays that the reporting room draws.

N texts, V videos, E points of a curve.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xclip_module.evaluation.retrieval import BEST_CAPTION, chance, ranks, recall_at
from xclip_module.reporting.picture import Picture, svg_bytes
from xclip_module.reporting.retrieval import plots as retrieval_plots
from xclip_module.reporting.retrieval.plots import Recall


def retrieval_pictures(
    similarity: Any, text_to_video: Any, split: str, *, protocol: str = BEST_CAPTION
) -> list[Picture]:
    """ "recall_<split>" and "ranks_<split>" with their numbers.

    similarity: [N, V].  text_to_video: [N].  protocol: of video → text, as for `evaluation.retrieval.ranks`.
    """
    recalls = _recalls(similarity, np.asarray(text_to_video), protocol)
    size = "{} texts, {} videos".format(*np.shape(similarity))
    curves, bars = recalls(retrieval_plots.recall_points), recalls(retrieval_plots.rank_edges)
    titles = (f"Recall among the first K, {split}: {size}", f"Where the own item stands, {split}: {size}")
    svgs = (
        svg_bytes(retrieval_plots.recall_figure(curves, title=titles[0])),
        svg_bytes(retrieval_plots.rank_figure(bars, title=titles[1])),
    )
    tables = (retrieval_plots.recall_csv(curves), retrieval_plots.rank_csv(bars))
    names = (f"recall_{split}", f"ranks_{split}")
    return [
        Picture(name, title, svg, {f"{name}.csv": table})
        for name, title, svg, table in zip(names, titles, svgs, tables, strict=True)
    ]


def _recalls(similarity: Any, owner: np.ndarray, protocol: str) -> Callable[[Callable[[int], list[int]]], list[Recall]]:
    """A function from the choice of K [E] for so many candidates to the recalls of both directions."""
    texts, videos = np.shape(similarity)
    ranked = ranks(similarity, owner, protocol=protocol)
    of_video = len(ranked.videos) if protocol == BEST_CAPTION else texts

    def recall(direction: str, places: np.ndarray, candidates: int, ks: Sequence[int]) -> Recall:
        expected = chance(owner, videos, ks=ks, protocol=protocol)
        levels = np.array([expected[f"{direction}/R@{k}"] for k in ks])
        return Recall(direction, ks, recall_at(places, ks), levels, len(places), candidates)

    return lambda points: [
        recall("t2v", ranked.t2v, videos, points(videos)),
        recall("v2t", ranked.v2t, of_video, points(of_video)),
    ]
