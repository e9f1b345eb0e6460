"""Figures of text-video retrieval: how recall grows with K, and at which ranks the own items stand.

Records of arrays in, `Figure` or csv text out. E points, Q queries. Ranks in the pictures count from 1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from xclip_module.reporting.chart import csv_text
from xclip_module.reporting.figures import BEST, CHANCE, FONT, TRUTH, blank, dress

_COLOURS = {"t2v": TRUTH, "v2t": BEST}
# Two chance lines that coincide, as on square matrices, show both colours in turn.
_DASHES = {"t2v": (0, (4, 4)), "v2t": (4, (4, 4))}
_NAMES = {"t2v": "text → video", "v2t": "video → text"}
# Points whose value is written beside them, as tables have it.
_MARKED = (1, 5, 10)
# Points of a recall curve between a power of ten and the next.
_PER_DECADE = 24


class RecallCurve(NamedTuple):
    """One direction: R@K [E] at ks [E], what chance reaches there [E] (fractions), and of how many queries.

    direction: "t2v" or "v2t".  candidates: how many items are ranked for each query.
    """

    direction: str
    ks: Sequence[int]
    values: np.ndarray
    chance: np.ndarray
    queries: int
    candidates: int


def recall_points(candidates: int) -> list[int]:
    """K of a recall curve on a logarithmic axis: evenly spread from 1 to all candidates, with 5 and 10.

    >>> recall_points(6)
    [1, 2, 3, 4, 5, 6]
    """
    spread = np.geomspace(1, candidates, int(_PER_DECADE * np.log10(candidates)) + 2).round().astype(int)
    return sorted({*spread.tolist(), *(k for k in _MARKED if k <= candidates)})


def rank_edges(candidates: int) -> list[int]:
    """Last ranks of the histogram's bars, 1, 2, 5, 10, 20, …: recall at them is the sum of the bars up to there.

    >>> rank_edges(30)
    [1, 2, 5, 10, 20, 30]
    """
    edges = [digit * 10**power for power in range(len(str(candidates))) for digit in (1, 2, 5)]
    return [*(edge for edge in edges if edge < candidates), candidates]


def recall_figure(curves: Sequence[RecallCurve], *, title: str) -> Figure:
    """R@K in percent over K, a line per direction, R@1, 5 and 10 marked; chance dashed."""
    height = 3.9
    figure = blank(height, title)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.075, right=0.985, top=1 - 0.55 / height, bottom=0.95 / height)
    for curve in curves:
        axes.plot(curve.ks, 100 * curve.values, color=_COLOURS[curve.direction], lw=1.8, label=_label(curve))
        axes.plot(curve.ks, 100 * curve.chance, color=_COLOURS[curve.direction], lw=1.1, ls=_DASHES[curve.direction])
    axes.plot([], [], color=CHANCE, lw=1.1, ls="--", label="chance")
    _mark(axes, curves)
    axes.set_xscale("log")
    last = max(2, *(curve.candidates for curve in curves))
    axes.set(xlim=(last**-0.06, last**1.01), ylim=(0, 102))
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("K: how many of the ranked items are looked at", fontsize=FONT)
    axes.set_ylabel("R@K (% of queries)", fontsize=FONT)
    axes.grid(axis="y", color="#E6E6E6", lw=0.7)
    dress(axes)
    figure.legend(loc="lower center", ncols=4, frameon=False, fontsize=FONT)
    return figure


def rank_figure(bars: Sequence[RecallCurve], *, title: str) -> Figure:
    """How many queries have their own item at rank 1, 2, 3–5, 6–10, …, a panel per direction; chance dashed.

    bars: R@K at the last rank of each bar (see `rank_edges`), for every direction.
    """
    height = 3.5
    figure = blank(height, title)
    grid = figure.subplots(1, len(bars), squeeze=False, sharey=True)[0]
    figure.subplots_adjust(left=0.075, right=0.985, top=1 - 0.75 / height, bottom=1.15 / height, wspace=0.06)
    for axes, curve in zip(grid, bars, strict=True):
        _draw_bars(axes, curve)
        axes.set_title(_label(curve), fontsize=10)
        dress(axes)
    grid[0].set_ylabel("queries (%)", fontsize=FONT)
    figure.text(0.53, 0.34 / height, "rank of the own video or text", fontsize=FONT, ha="center", va="bottom")
    handles, names = grid[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", frameon=False, fontsize=FONT, ncols=2)
    return figure


def recall_csv(curves: Sequence[RecallCurve]) -> str:
    """The numbers of `recall_figure`, fractions: direction, K, R@K, chance."""
    rows = (
        (curve.direction, k, float(value), float(chance))
        for curve in curves
        for k, value, chance in zip(curve.ks, curve.values, curve.chance, strict=True)
    )
    return csv_text(("direction", "K", "R@K", "chance"), rows)


def rank_csv(bars: Sequence[RecallCurve]) -> str:
    """The numbers of `rank_figure`: direction, first and last rank of each bar, queries, and fractions of them."""
    rows = []
    for curve in bars:
        shares, expected, firsts = _parts(curve.values), _parts(curve.chance), _firsts(curve.ks)
        counts = np.rint(shares * curve.queries).astype(int)
        for bar, last in enumerate(curve.ks):
            cells = (int(counts[bar]), float(shares[bar]), float(expected[bar]))
            rows.append((curve.direction, firsts[bar], last, *cells))
    return csv_text(("direction", "first rank", "last rank", "queries", "share", "chance"), rows)


def _label(curve: RecallCurve) -> str:
    return f"{_NAMES[curve.direction]}, n={curve.queries} among {curve.candidates}"


def _parts(values: np.ndarray) -> np.ndarray:
    """What each bar adds to the recall before it."""
    return np.diff(values, prepend=0.0)


def _firsts(ks: Sequence[int]) -> list[int]:
    """First rank of each bar."""
    return [1, *(k + 1 for k in ks[:-1])]


def _mark(axes: Axes, curves: Sequence[RecallCurve]) -> None:
    """The values of tables as dots; the higher curve's numbers stand left above it, the other's right below."""
    lines = [
        (_COLOURS[curve.direction], dict(zip(curve.ks, (100 * curve.values).tolist(), strict=True))) for curve in curves
    ]
    for k in _MARKED:
        at_k = sorted(((values[k], colour) for colour, values in lines if k in values), reverse=True)
        for index, (value, colour) in enumerate(at_k):
            axes.plot([k], [value], marker="o", ms=4.5, color=colour, ls="")
            style = {"xytext": (5, -11)} if index else {"xytext": (-4, 4), "ha": "right"}
            axes.annotate(f"{value:.1f}", (k, value), textcoords="offset points", fontsize=FONT, color=colour, **style)


def _draw_bars(axes: Axes, curve: RecallCurve) -> None:
    shares, expected = 100 * _parts(curve.values), 100 * _parts(curve.chance)
    bars = np.arange(len(curve.ks))
    axes.bar(bars, shares, width=0.86, color=_COLOURS[curve.direction])
    # White below, or grey is lost on a bar.
    axes.hlines(expected, bars - 0.43, bars + 0.43, color="white", lw=3.2)
    axes.hlines(expected, bars - 0.43, bars + 0.43, color=CHANCE, lw=1.6, ls="--", label="chance")
    bounds = zip(_firsts(curve.ks), curve.ks, strict=True)
    names = [f"{first}–{last}" if first < last else str(last) for first, last in bounds]
    axes.set_xticks(bars, names, rotation=35, ha="right", rotation_mode="anchor")
