"""Arrays in, `Figure` out. M samples of a curve, Q queries."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Okabe and Ito's colours, told apart with any colour vision.
TRUTH, CURVE, BEST, OTHER = "#56B4E9", "#333333", "#D55E00", "#E6B98F"
_ROW_INCHES = 0.62

Span = tuple[float, float]


def timeline(
    times: np.ndarray,
    scores: np.ndarray,
    names: Sequence[str],
    *,
    truth: Sequence[Sequence[Span] | None],
    moments: Sequence[Sequence[Span]],
    duration: float,
    title: str,
) -> Figure:
    """One row per query: its score curve, the truth behind it, the kept moments under it, the best one strong.

    times: [M] seconds.  scores: [Q, M], each row drawn to its own range.  truth: per query, None = not annotated.
    moments: per query, best first.
    """
    height = 1.25 + _ROW_INCHES * len(names)
    figure = Figure(figsize=(11, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0]
    for axis, name, curve, spans, found in zip(axes, names, scores, truth, moments, strict=True):
        _draw_row(axis, times, curve, spans, found)
        label = name if len(name) <= 44 else name[:43] + "…"
        axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9)
    axes[-1].set_xlim(0, duration)
    axes[-1].xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 3, 6, 10]))
    axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
    axes[-1].set_xlabel("time (min:s)")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    handles = [
        axes[0].fill_between([], [], color=TRUTH, alpha=0.55, label="truth"),
        axes[0].plot([], [], color=CURVE, lw=1, label="score (own range)")[0],
        axes[0].plot([], [], color=BEST, lw=4, label="best moment")[0],
        axes[0].plot([], [], color=OTHER, lw=4, label="further moments")[0],
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def clock(seconds: float) -> str:
    """mm:ss, rounded to the second; minutes go on beyond 59.

    >>> clock(75.4), clock(3725)
    ('01:15', '62:05')
    """
    whole = int(seconds + 0.5)
    return f"{whole // 60:02d}:{whole % 60:02d}"


def _draw_row(
    axis, times: np.ndarray, curve: np.ndarray, truth: Sequence[Span] | None, moments: Sequence[Span]
) -> None:
    for start, end in truth or ():
        axis.axvspan(start, end, color=TRUTH, alpha=0.55, lw=0)
    axis.plot(times, curve, color=CURVE, lw=1)
    low, high = float(curve.min()), float(curve.max())
    room = (high - low) or 1.0
    axis.set_ylim(low - 0.42 * room, high + 0.1 * room)
    # The best on top of the others, so drawn last.
    for rank, (start, end) in reversed(list(enumerate(moments))):
        axis.plot([start, end], [low - 0.25 * room] * 2, color=OTHER if rank else BEST, lw=4, solid_capstyle="butt")
    axis.set_yticks([])
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
