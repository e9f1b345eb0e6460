"""One video at a glance: which phase was true, which was predicted, and how strongly each query answered when.

M samples, Q queries. Times are seconds.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from xclip_module.reporting.chart import clock, csv_text, label_lines
from xclip_module.reporting.figures import BEST, FONT, FURTHER, TRUTH, WIDTH, blank, dress, ink_on, query_colours

# Inches around the axes, and of a row, a strip, and the way from one to the next.
_LEFT, _RIGHT, _TOP, _BOTTOM = 2.25, 0.3, 0.36, 0.86
_PHASE_ROW, _STRIP, _STEP = 0.26, 0.21, 0.36
# Letters of a query's name that fit left of its strip.
_LABEL_WIDTH = 27
# Marks below a strip: further ones are thin lines over each other and say nothing.
_SHOWN_MOMENTS = 5
_NONE = -1

Span = tuple[float, float]


class Ribbon(NamedTuple):
    """What is drawn of one video.

    times: [M] middle of each sample.  scores: [Q, M], each strip to its own range.  kinds: "phase", "tool" or "free".
    truth: per query its segments, None = not annotated.  moments: per query (start, end, score), best first.
    true_phase, predicted: [M] index of the query, -1 = unknown; None where there are no phases to choose from.
    """

    video: str
    times: np.ndarray
    duration: float
    scores: np.ndarray
    names: Sequence[str]
    kinds: Sequence[str]
    truth: Sequence[Sequence[Span] | None]
    moments: Sequence[Sequence[Sequence[float]]]
    true_phase: np.ndarray | None
    predicted: np.ndarray | None


def ribbon_figure(ribbon: Ribbon) -> Figure:
    """Truth row, prediction row with its wrong parts hatched, and a heat strip per query; time axis in mm:ss.

    On a strip the truth is outlined; below it lie the best moment and up to four further ones.
    """
    rows = [row for row in (ribbon.true_phase, ribbon.predicted) if row is not None]
    tall = _STEP * (len(rows) + len(ribbon.names))
    height = _TOP + tall + _BOTTOM
    title = f"{label_lines(ribbon.video, 70, lines=1)}: {len(ribbon.times)} samples, {len(ribbon.names)} queries"
    figure = blank(height, title)
    box = (_LEFT / WIDTH, _BOTTOM / height, 1 - (_LEFT + _RIGHT) / WIDTH, tall / height)
    axes = figure.add_axes(box, xlim=(0, ribbon.duration), ylim=(tall, 0))
    _draw_phases(axes, ribbon)
    for row, name in enumerate(ribbon.names):
        top = _STEP * (len(rows) + row)
        _draw_strip(axes, ribbon, row, top)
        _label(axes, f"{row + 1}  {name}", top + _STRIP / 2, colour=query_colours(ribbon.kinds)[row])
    _dress_time(axes)
    _legend(figure, ribbon)
    return figure


def ribbon_csv(ribbon: Ribbon) -> dict[str, str]:
    """Two tables: "" the samples (seconds, phases, scores), ".spans" the true segments and the ranked moments."""
    phases = [("true phase", ribbon.true_phase), ("predicted phase", ribbon.predicted)]
    named = [(title, [ribbon.names[i] if i >= 0 else None for i in row]) for title, row in phases if row is not None]
    columns = [ribbon.times.astype(float), *(row for _, row in named), *ribbon.scores.astype(float)]
    samples = csv_text(["seconds", *(title for title, _ in named), *ribbon.names], zip(*columns, strict=True))
    return {"": samples, ".spans": csv_text(["query", "what", "rank", "start", "end", "score"], _span_rows(ribbon))}


def _span_rows(ribbon: Ribbon) -> Iterator[list[Any]]:
    for name, truth, moments in zip(ribbon.names, ribbon.truth, ribbon.moments, strict=True):
        yield from ([name, "truth", None, float(start), float(end), None] for start, end in truth or ())
        yield from ([name, "moment", rank, *map(float, moment)] for rank, moment in enumerate(moments, start=1))


def _edges(ribbon: Ribbon) -> np.ndarray:
    """[M + 1]: a sample reaches half way to its neighbours, the outer ones to the ends of the video."""
    return np.concatenate([[0.0], (ribbon.times[1:] + ribbon.times[:-1]) / 2, [ribbon.duration]])


def _draw_phases(axes: Axes, ribbon: Ribbon) -> None:
    colours = query_colours(ribbon.kinds)
    edges = _edges(ribbon)
    rows = [("truth", ribbon.true_phase), ("prediction", ribbon.predicted)]
    for row, (title, phases) in enumerate((title, phases) for title, phases in rows if phases is not None):
        top = _STEP * row
        paint = np.array([to_rgb(colours[phase]) if phase != _NONE else (1, 1, 1) for phase in phases])
        _image(axes, paint[None], edges, top, _PHASE_ROW)
        for first, last in _stretches(phases):
            _number(axes, phases[first], edges[first], edges[last], top, colours)
        _label(axes, title, top + _PHASE_ROW / 2)
    if ribbon.true_phase is not None and ribbon.predicted is not None:
        wrong = (ribbon.true_phase != _NONE) & (ribbon.true_phase != ribbon.predicted)
        spans = [(edges[a], edges[b] - edges[a]) for a, b in _stretches(wrong.astype(int)) if wrong[a]]
        # Hatching drowns the colours of a prediction that changes all the time; the bar below it is seen in any case.
        wide = [span for span in spans if span[1] > 0.015 * ribbon.duration]
        axes.broken_barh(wide, (_STEP, _PHASE_ROW), facecolor="none", edgecolor="black", hatch="////", linewidth=0)
        axes.broken_barh(spans, (_STEP + _PHASE_ROW + 0.015, 0.05), color="black", linewidth=0)


def _number(axes: Axes, phase: int, start: float, end: float, top: float, colours: Sequence[str]) -> None:
    """The query's number inside a block that is wide enough for it."""
    inches = (end - start) / axes.get_xlim()[1] * (WIDTH - _LEFT - _RIGHT)
    if phase != _NONE and inches > 0.2:
        middle = ((start + end) / 2, top + _PHASE_ROW / 2)
        paper = {"facecolor": colours[phase], "edgecolor": "none", "pad": 1.2}
        axes.text(
            *middle, f"{phase + 1}", fontsize=FONT, ha="center", va="center", color=ink_on(colours[phase]), bbox=paper
        )


def _stretches(values: np.ndarray) -> Iterator[tuple[int, int]]:
    """[first, last) of every stretch of equal values."""
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1, [len(values)]])
    yield from zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)


def _draw_strip(axes: Axes, ribbon: Ribbon, row: int, top: float) -> None:
    curve = ribbon.scores[row].astype(float)
    room = float(np.ptp(curve)) or 1.0
    # Light to middle grey: the outlines must be seen on the darkest sample.
    grey = 0.97 - 0.72 * (curve - curve.min()) / room
    _image(axes, np.repeat(grey[:, None], 3, axis=1)[None], _edges(ribbon), top, _STRIP)
    for start, end in ribbon.truth[row] or ():
        box = Rectangle((start, top), end - start, _STRIP, fill=False, edgecolor=TRUTH, linewidth=1.4)
        axes.add_patch(box)
    # The best on top of the others, so drawn last.
    for rank, (start, end, *_) in reversed(list(enumerate(ribbon.moments[row][:_SHOWN_MOMENTS]))):
        span = [(start, end - start)]
        axes.broken_barh(span, (top + _STRIP + 0.025, 0.06), color=FURTHER if rank else BEST, linewidth=0)


def _image(axes: Axes, paint: np.ndarray, edges: np.ndarray, top: float, height: float) -> None:
    """[1, M, 3] fractions as one row of equal pixels; the last one, whose sample may be longer, twice and cut."""
    box = (0.0, edges[1] * len(edges), top + height, top)
    axes.imshow(np.append(paint, paint[:, -1:], axis=1), extent=box, aspect="auto", interpolation="none")


def _label(axes: Axes, text: str, middle: float, *, colour: str = "") -> None:
    side = -0.08 / (WIDTH - _LEFT - _RIGHT)
    beside = axes.get_yaxis_transform()
    shown = label_lines(text, _LABEL_WIDTH)
    axes.text(side * 1.9, middle, shown, transform=beside, ha="right", va="center", fontsize=FONT, linespacing=0.95)
    if colour:
        box = Rectangle((side * 1.4, middle - _STRIP / 2), -side * 0.9, _STRIP, facecolor=colour, transform=beside)
        box.set_clip_on(False)
        axes.add_patch(box)


def _dress_time(axes: Axes) -> None:
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 3, 6, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: clock(seconds)))
    axes.set_xlabel("time (mm:ss)", fontsize=FONT)
    dress(axes, without=("top", "right", "left"))


def _legend(figure: Figure, ribbon: Ribbon) -> None:
    handles = [Patch(facecolor="0.3", label="high score (strip's own range)")]
    if any(ribbon.truth):
        handles.append(Patch(facecolor="none", edgecolor=TRUTH, linewidth=1.4, label="truth"))
    handles += [Patch(facecolor=BEST, label="best moment"), Patch(facecolor=FURTHER, label="next four")]
    if ribbon.true_phase is not None and ribbon.predicted is not None:
        handles.append(
            Patch(facecolor="none", edgecolor="black", hatch="////", linewidth=0, label="wrong (black below)")
        )
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=FONT)
