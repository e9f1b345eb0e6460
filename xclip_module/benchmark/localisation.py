"""Curves to moments: how fast, and on simulated curves over real phase times, how well beside simpler ways.

Q queries, M samples of a curve, V videos.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from xclip_module.benchmark.meter import aligned, measured, table
from xclip_module.config import EvalConfig
from xclip_module.datasets.cholec80.corpus import PHASES, PROCEDURE_ORDERS, read_labels
from xclip_module.datasets.cholec80.layout import find_layout, video_id
from xclip_module.errors import DataError
from xclip_module.evaluation.frames import labels_at
from xclip_module.evaluation.localisation import localise_pairs, metrics
from xclip_module.interface import Answer, Curve, Moment, Pair, Question, Segment
from xclip_module.moments.answers import answer
from xclip_module.moments.proposals import runs, scan_statistic, suppress
from xclip_module.moments.tracks import PROCEDURE, QUERY_SET, SIMILARITY, standardise

_STRIDE = 4.0
_TRACKS = (SIMILARITY, QUERY_SET, PROCEDURE)
_SECTION = EvalConfig()
_PHASE_QUESTIONS = [Question(name, "phase") for name in PHASES]
# Windows of the plain way, in samples: half a minute to a quarter of an hour.
_WINDOWS = (8, 15, 30, 60, 120, 240)
_TARGETS = (0.76, 0.90)

# Video -> phase -> segments, and its length in seconds.
Times = Mapping[str, tuple[Mapping[str, Sequence[Segment]], float]]
Segmenter = Callable[[Curve], Answer]


def run(*, labels: Path | None = None, videos: int = 8) -> list[str]:
    """The speed table, and with the labels folder of a Cholec80 copy the tables on simulated curves."""
    lines = _speed(videos)
    if labels is not None:
        times = _phase_times(labels)
        lines += ["", *_choice(times), "", *_quality(times)]
    return lines


def _speed(videos: int) -> list[str]:
    """One-hour videos, 7 phases and 7 tools, beside the scan over every interval."""
    rng = np.random.default_rng(0)
    times = (np.arange(900) + 0.5) * _STRIDE
    questions = [*_PHASE_QUESTIONS, *(Question(f"tool {n}", "tool") for n in range(7))]
    curves = [Curve(f"v{n}", times, _autoregressive(rng, len(questions), 900, 0.9), 3600.0) for n in range(videos)]
    with measured() as cost:
        _exhaustive(curves[0])
    naive = "every interval (phases only)"
    rows, each = {naive: cost.times(videos)}, []
    answer(curves[0], questions, track=_TRACKS[0], stride=_STRIDE, section=_SECTION)  # the first call loads code
    for track in _TRACKS:
        with measured() as cost:
            for curve in curves:
                answer(curve, questions, track=track, stride=_STRIDE, section=_SECTION, orders=PROCEDURE_ORDERS)
        rows[f"ours, {track}"] = cost
        each.append(f"{track} {1000 * cost.seconds / videos:.0f} ms")
    title = f"curves to moments: {videos} videos of 1 h, a score every {_STRIDE:g} s, 14 queries"
    return [title, *table(rows, against=naive), f"a video: {', '.join(each)}"]


def _quality(times: Times) -> list[str]:
    """Every segmenter on the test videos; the signal's strength is set on the training videos."""
    train, test = _split(times, 1, 40), _split(times, 41, 80)
    ways: dict[str, Segmenter] = {
        "threshold at 0.5": _threshold(lambda row: 0.5),
        "threshold at mean + sd": _threshold(lambda row: float(row.mean() + row.std())),
        "fixed windows, NMS": _windows,
        **{f"ours, {track}": _ours(track, _SECTION) for track in _TRACKS},
        "ours, +query-set softmax": _ours(_TRACKS[1], EvalConfig(query_norm="softmax")),
    }
    rows = []
    for target in _TARGETS:
        curves = _simulate(test, _strength(train, target), seed=1)
        reached = _auroc(curves, test)
        for name, way in ways.items():
            numbers, spent = _judge(way, curves, test)
            cells = (f"{100 * numbers[key]:.1f}" for key in ("det_mAP@0.3", "det_mAP@0.5", "det_mAP@0.7", "R1@0.5"))
            rows.append((name, f"{reached:.3f}", *cells, f"{spent:.1f}"))
    return [
        f"simulated curves, real phase times of {len(test)} Cholec80 test videos, a score every {_STRIDE:g} s; percent",
        *aligned({"": 24, "AUROC": 5, "mAP@0.3": 7, "mAP@0.5": 7, "mAP@0.7": 7, "R1@0.5": 7, "ms/video": 8}, rows),
    ]


def _choice(times: Times) -> list[str]:
    """How the defaults were chosen: smoothing and suppression on the training videos alone."""
    train = _split(times, 1, 40)
    columns = {f"{track} {target:g}": (target, track) for target in _TARGETS for track in _TRACKS[:2]}
    curves = {target: _simulate(train, _strength(train, target), seed=1) for target in _TARGETS}
    rows = []
    for strides in (1, 2, 5):
        for nms in (0.1, 0.3, 0.5):
            section = EvalConfig(smooth_seconds=strides * _STRIDE, nms_tiou=nms)
            results = (_judge(_ours(track, section), curves[target], train)[0] for target, track in columns.values())
            cells = (f"{100 * numbers['det_mAP@0.5']:.1f}" for numbers in results)
            rows.append((f"{strides * _STRIDE:g} s, {nms:g}", *cells))
    return [
        f"choice of the defaults: det_mAP@0.5 in percent on {len(train)} Cholec80 training videos",
        *aligned({"Gaussian, NMS": 24, **dict.fromkeys(columns, 20)}, rows),
    ]


def _judge(way: Segmenter, curves: Sequence[Curve], times: Times) -> tuple[dict[str, Any], float]:
    """Metrics of a segmenter, and its milliseconds a video."""
    start = time.perf_counter()
    answers = [way(curve) for curve in curves]
    spent = 1000 * (time.perf_counter() - start) / len(curves)
    pairs = [
        Pair(phase, result.video, tuple(times[result.video][0][phase]), tuple(result.moments[phase]))
        for result in answers
        for phase in PHASES
    ]
    return metrics(localise_pairs(pairs)), spent


def _phase_times(root: Path) -> Times:
    """Of a Cholec80 copy's phase_annotations. Raises DataError when there are none."""
    layout = find_layout(root)
    if not layout.phases:
        raise DataError("no phase labels", root, "expected phase_annotations/video01-phase.txt …", "--labels=FOLDER")
    labels_of = {video_id(number): read_labels(layout, number) for number in sorted(layout.phases)}
    return {name: (labels.segments, labels.seconds) for name, labels in labels_of.items()}


def _split(times: Times, first: int, last: int) -> Times:
    names = {video_id(number) for number in range(first, last + 1)}
    return {name: labels for name, labels in times.items() if name in names}


def _simulate(times: Times, strength: float, *, seed: int) -> list[Curve]:
    """A raised score while the phase holds, with cross-talk, noise that lasts, drift, and an offset of each pair."""
    rng, curves = np.random.default_rng(seed), []
    for video, (segments, seconds) in times.items():
        centres = (np.arange(max(2, round(seconds / _STRIDE))) + 0.5) * _STRIDE
        holds = np.stack([labels_at(centres, segments[name]) for name in PHASES]).astype(float)
        signal = holds + 0.15 * rng.random((len(PHASES), len(PHASES))) @ holds
        shared = _autoregressive(rng, 1, len(centres), 0.9)
        drift = rng.normal(size=(len(PHASES), 1)) * np.linspace(-0.3, 0.3, len(centres))
        offset = 0.7 * rng.normal(size=(len(PHASES), 1))
        noise = _autoregressive(rng, len(PHASES), len(centres), 0.75) + 0.5 * shared
        curves.append(Curve(video, centres, strength * signal + noise + drift + offset, seconds))
    return curves


def _autoregressive(rng: np.random.Generator, rows: int, count: int, memory: float) -> np.ndarray:
    """Noise [rows, count] of variance 1 in which neighbours correlate by `memory`."""
    steps = rng.normal(size=(rows, count))
    values = steps.copy()
    for sample in range(1, count):
        values[:, sample] = memory * values[:, sample - 1] + (1 - memory**2) ** 0.5 * steps[:, sample]
    return values


def _strength(times: Times, target: float) -> float:
    """The signal's strength at which the mean AUROC of the pairs is `target`, by bisection."""
    low, high = 0.0, 8.0
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if _auroc(_simulate(times, middle, seed=0), times) < target else (low, middle)
    return (low + high) / 2


def _auroc(curves: Sequence[Curve], times: Times) -> float:
    values = []
    for curve in curves:
        for row, name in enumerate(PHASES):
            labels = labels_at(curve.times, times[curve.video][0][name])
            if labels.any() and not labels.all():
                values.append(roc_auc_score(labels, curve.scores[row]))
    return float(np.mean(values))


def _ours(track: str, section: EvalConfig) -> Segmenter:
    return lambda curve: answer(
        curve, _PHASE_QUESTIONS, track=track, stride=_STRIDE, section=section, orders=PROCEDURE_ORDERS
    )


def _threshold(level: Callable[[np.ndarray], float]) -> Segmenter:
    """Runs above one level, scored by the mean inside: what the thesis did with 0.5."""
    return lambda curve: _plain(curve, [runs((row > level(row))[None]) for row in curve.scores])


def _windows(curve: Curve) -> Answer:
    """Windows of fixed lengths, half overlapping, scored by the mean inside, then suppression at 0.5."""
    count = curve.scores.shape[1]
    ranges = np.array(
        [(start, start + size) for size in _WINDOWS for start in range(0, count - size + 1, size // 2)] or [(0, count)]
    )
    kept = []
    for row in curve.scores:
        sums = np.concatenate([[0.0], np.cumsum(row)])
        means = (sums[ranges[:, 1]] - sums[ranges[:, 0]]) / (ranges[:, 1] - ranges[:, 0])
        kept.append(ranges[suppress(ranges, means, 0.5, _SECTION.moments_per_query)])
    return _plain(curve, kept)


def _plain(curve: Curve, ranges: Sequence[np.ndarray]) -> Answer:
    edges = np.append(curve.times - _STRIDE / 2, curve.duration)
    moments = {
        name: [Moment(edges[a], edges[b], float(row[a:b].mean())) for a, b in spans]
        for name, row, spans in zip(PHASES, curve.scores, ranges, strict=True)
    }
    return Answer(curve.video, curve.times, curve.duration, curve.scores, moments)


def _exhaustive(curve: Curve) -> None:
    """The scan statistic of every interval of every phase, then suppression."""
    count = curve.scores.shape[1]
    ranges = np.stack(np.triu_indices(count + 1, 1), axis=1)
    ranges = ranges[ranges[:, 1] - ranges[:, 0] < count]
    for row in standardise(curve.scores)[: len(PHASES)]:
        scores = scan_statistic(row, ranges)
        suppress(ranges[scores > 0], scores[scores > 0], _SECTION.nms_tiou, _SECTION.moments_per_query)
