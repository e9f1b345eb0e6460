"""The pictures of a linear probe: the sweep over λ, the learning curve, the training of the temporal head.

From metrics.json's "probe" to charts. Fractions come in, percent is drawn; NaN where a number is unknown.

K values of λ, N draws of training videos, S numbers of training videos, E epochs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from xclip_module.reporting import few_shot, probe_facts
from xclip_module.reporting.chart import Chart, chart_of, csv_text, label_lines
from xclip_module.reporting.few_shot import Spread, videos_text
from xclip_module.reporting.figures import BEST, CHANCE, FEW_POINTS, FONT, LINES, TRUTH, blank, dress, name_lines
from xclip_module.reporting.tables import count_text, number
from xclip_module.reporting.training_facts import series

# By name, so that a missing split moves no other's colour.
_SPLITS = {"val": LINES["+query-set"], "test": LINES["similarity-only"]}
_PRIOR, _CHANCE = "--", (0, (1, 1.5))
# Numbers of videos nearer than this share of the axis get one number at their ticks.
_TICK_ROOM = 0.07


class _Learning(NamedTuple):
    """One metric of one split against the number of training videos.

    draws, values: [N] number of videos and value of each draw.  shots, mean, low, high: [S] over the draws, ascending.
    chance, prior: level of scores without knowledge and of the time prior.
    """

    draws: np.ndarray
    values: np.ndarray
    shots: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    chance: float
    prior: float


def probe_pictures(metrics: Mapping[str, Any]) -> list[Chart]:
    """Sweep over λ, learning curve and temporal head, those of them that there are; none for other runs."""
    probe = metrics.get("probe")
    if not probe:
        return []
    pictures = [_sweep_picture(probe), _learning_picture(metrics), _temporal_picture(probe)]
    return [picture for picture in pictures if picture]


def _sweep_picture(probe: Mapping[str, Any]) -> Chart | None:
    """The watched metric of train (dashed) and val (solid) against λ, a panel per head, the chosen λ marked."""
    # A given λ is a single point, no curve.
    heads, monitor = [head for head in probe["heads"] if len(head["sweep"]) > 1], probe["monitor"]
    if not heads:
        return None
    trained = f"{count_text(probe['windows'])} windows of {videos_text(probe['videos'])}"
    title = f"{monitor} against λ, chosen on {probe['chosen_on']}; trained on {trained}"
    figure = blank(3.6, title, top=0.98)
    grid = figure.subplots(1, len(heads), squeeze=False)[0]
    figure.subplots_adjust(left=0.075, right=0.985, top=0.76, bottom=0.25, wspace=0.14)
    for axes, head in zip(grid, heads, strict=True):
        _draw_sweep(axes, head, monitor)
    grid[0].set_ylabel(f"{monitor} (%)", fontsize=FONT)
    name_lines(figure, grid)
    names = ("lambda", "train", "val", "steps")
    rows = (
        [head["kind"], *(row[name] for name in names), int(row["lambda"] == head["lambda"])]
        for head in heads
        for row in head["sweep"]
    )
    table = csv_text(["head", "lambda", f"train {monitor}", f"val {monitor}", "steps", "chosen"], rows)
    return chart_of(probe_facts.SWEEP, title, figure, {"": table})


def _draw_sweep(axes: Axes, head: Mapping[str, Any], monitor: str) -> None:
    rows = sorted(head["sweep"], key=lambda row: row["lambda"])
    strengths, train, val = (series(rows, name) for name in ("lambda", "train", "val"))
    axes.plot(strengths, 100 * train, color=CHANCE, lw=1.4, ls="--", marker="o", ms=3, label="train")
    if np.isfinite(val).any():
        axes.plot(strengths, 100 * val, color=TRUTH, lw=1.8, marker="o", ms=4, label="val")
    _mark(axes, strengths, 100 * val, _float(head["lambda"]), "chosen λ")
    axes.set_xscale("log")
    best = "" if head["best"] is None else f", val {monitor} {number(head['best'])} %"
    lines = (f"{head['kind']}: {head['form']}", f"λ = {probe_facts.strength_text(head['lambda'])}{best}")
    axes.set_title("\n".join(label_lines(line, 60, lines=1) for line in lines), fontsize=10)
    axes.set_xlabel("λ, penalty of the squared weights", fontsize=FONT)
    _dress(axes)


def _learning_picture(metrics: Mapping[str, Any]) -> Chart | None:
    draws = metrics["probe"]["few_shot"]
    spreads = few_shot.spreads(draws) if draws else []
    # A metric that no draw has would be an empty panel.
    measured = {spread.metric for spread in spreads if spread.known}
    splits = list(dict.fromkeys(spread.split for spread in spreads))
    panels = {
        column.key: {split: _learning(metrics, spreads, split, column.key) for split in splits}
        for column in few_shot.METRICS
        if column.key in measured
    }
    if not panels:
        return None
    sizes = (f"{split}: {videos_text(row['videos'])}" for split, row in metrics["splits"].items() if split in splits)
    title = f"The probe against the number of training videos; {', '.join(sizes)}"
    levels = (
        [split, metric, few_shot.chance(draws, split, metric), few_shot.prior_of(metrics, split, metric)]
        for metric in panels
        for split in splits
    )
    numbers = {
        "": _draws_csv(draws["rows"]),
        ".means": csv_text(
            ["training videos", "split", "metric", "mean", "lowest draw", "highest draw", "known draws", "draws"],
            spreads,
        ),
        ".levels": csv_text(["split", "metric", "chance", "time prior"], levels),
    }
    return chart_of(probe_facts.LEARNING, title, _learning_figure(panels, title=title), numbers)


def _learning(metrics: Mapping[str, Any], spreads: Sequence[Spread], split: str, metric: str) -> _Learning:
    draws = metrics["probe"]["few_shot"]
    rows = draws["rows"]
    line = [spread for spread in spreads if (spread.split, spread.metric) == (split, metric)]
    return _Learning(
        draws=series(rows, "shots"),
        values=series([row["splits"].get(split, {}) for row in rows], metric),
        shots=np.array([spread.shots for spread in line], float),
        mean=np.array([_float(spread.mean) for spread in line]),
        low=np.array([_float(spread.low) for spread in line]),
        high=np.array([_float(spread.high) for spread in line]),
        chance=_float(few_shot.chance(draws, split, metric)),
        prior=_float(few_shot.prior_of(metrics, split, metric)),
    )


def _draws_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per draw and split."""
    keys = [*(column.key for column in few_shot.METRICS), "prevalence"]
    kinds = list(dict.fromkeys(kind for row in rows for kind in row["lambda"]))
    lines = (
        [
            row["shots"],
            row["draw"],
            split,
            *map(values.get, keys),
            *map(row["lambda"].get, kinds),
            "; ".join(row["videos"]),
        ]
        for row in rows
        for split, values in row["splits"].items()
    )
    head = ["training videos", "draw", "split", *keys, *(f"lambda {kind}" for kind in kinds), "videos"]
    return csv_text(head, lines)


def _learning_figure(panels: Mapping[str, Mapping[str, _Learning]], *, title: str) -> Figure:
    """Each metric against the number of training videos, a colour per split: every draw, their mean and range.

    panels: metric -> split -> its numbers. Dashed the time prior, dotted chance.
    """
    figure = blank(3.9, title, top=0.98)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    figure.subplots_adjust(left=0.065, right=0.985, top=0.82, bottom=0.27, wspace=0.16)
    splits = list(dict.fromkeys(split for lines in panels.values() for split in lines))
    for axes, (metric, lines) in zip(grid, panels.items(), strict=True):
        for split, line in lines.items():
            _draw_learning(axes, line, _SPLITS.get(split, "black"))
        _dress_shots(axes, list(lines.values()))
        axes.set_title(f"{metric} (%)", fontsize=10)
        _dress(axes)
    handles: dict[str, Artist] = {
        f"{split}, mean of the draws": Line2D([], [], color=_SPLITS.get(split, "black"), lw=1.8) for split in splits
    }
    handles["one draw"] = Line2D([], [], color=CHANCE, marker="o", ms=4, ls="", alpha=0.6)
    handles["range over draws"] = Patch(color=CHANCE, alpha=0.2, lw=0)
    handles["time prior"] = Line2D([], [], color=CHANCE, lw=1.3, ls=_PRIOR)
    handles["chance"] = Line2D([], [], color=CHANCE, lw=1.3, ls=_CHANCE)
    figure.legend(handles.values(), handles, loc="lower center", ncols=len(handles), frameon=False, fontsize=FONT)
    return figure


def _draw_learning(axes: Axes, line: _Learning, colour: str) -> None:
    for level, style in ((line.prior, _PRIOR), (line.chance, _CHANCE)):
        if math.isfinite(level):
            axes.axhline(100 * level, color=colour, lw=1.3, ls=style)
    axes.fill_between(line.shots, 100 * line.low, 100 * line.high, color=colour, alpha=0.2, lw=0)
    axes.plot(line.draws, 100 * line.values, color=colour, marker="o", ms=4, ls="", alpha=0.6, mew=0)
    axes.plot(line.shots, 100 * line.mean, color=colour, lw=1.8)


def _dress_shots(axes: Axes, lines: Sequence[_Learning]) -> None:
    """A logarithmic axis of videos with a tick at each number that was tried."""
    shots = sorted({float(count) for line in lines for count in line.shots})
    axes.set_xscale("log", base=2)
    reach = max(shots[-1] / shots[0], 2) ** 0.06
    axes.set_xlim(shots[0] / reach, shots[-1] * reach)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(shots, _tick_labels(shots))
    axes.set_xlabel("training videos", fontsize=FONT)


def _tick_labels(shots: Sequence[float]) -> list[str]:
    """The numbers as text, from the largest down; those too near to the last one written stay empty."""
    width = math.log(shots[-1] / shots[0]) or 1.0
    labels: list[str] = []
    last = math.inf
    for count in reversed(shots):
        is_free = math.log(last / count) / width >= _TICK_ROOM
        labels.append(f"{count:g}" if is_free else "")
        last = count if is_free else last
    return labels[::-1]


def _temporal_picture(probe: Mapping[str, Any]) -> Chart | None:
    """Training loss and, where it is known, the watched metric of val per epoch; the kept epoch marked in both."""
    temporal = probe["temporal"]
    if not temporal or not temporal["curve"]:
        return None
    rows, monitor, best = temporal["curve"], probe["monitor"], temporal["best_epoch"]
    epochs, loss, val = (series(rows, name) for name in ("epoch", "loss", "val"))
    kept = "" if best is None else f"; epoch {best} was kept"
    title = f"Training of the temporal head, {len(rows)} epochs{kept}"
    figure = blank(3.4, title, top=0.98)
    grid = figure.subplots(1, 1 + bool(np.isfinite(val).any()), squeeze=False)[0]
    figure.subplots_adjust(left=0.075, right=0.985, top=0.8, bottom=0.27, wspace=0.16)
    parts = [(loss, "training loss", "loss (nats)"), (100 * val, f"val {monitor}", f"{monitor} (%)")]
    for axes, (values, name, unit) in zip(grid, parts, strict=False):
        marker = "o" if len(epochs) < FEW_POINTS else ""
        axes.plot(epochs, values, color=TRUTH, lw=1.6, marker=marker, ms=3.5)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("epoch", fontsize=FONT)
        axes.set_ylabel(unit, fontsize=FONT)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
        _mark(axes, epochs, values, _float(best), "kept epoch")
        _dress(axes)
    name_lines(figure, grid)
    lines = ([row["epoch"], row["loss"], row["val"]] for row in rows)
    table = csv_text(["epoch", "loss", f"val {monitor}"], lines)
    return chart_of(probe_facts.EPOCHS, title, figure, {"": table})


def _mark(axes: Axes, x: np.ndarray, y: np.ndarray, chosen: float, name: str) -> None:
    """A line at what was chosen, and its point where the value there is known."""
    if not math.isfinite(chosen):
        return
    axes.axvline(chosen, color=BEST, lw=1.2, ls="-.", label=name)
    axes.plot(x[x == chosen], y[x == chosen], color=BEST, marker="D", ms=6, ls="", zorder=3)


def _dress(axes: Axes) -> None:
    dress(axes)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))


def _float(value: float | None) -> float:
    return np.nan if value is None else value
