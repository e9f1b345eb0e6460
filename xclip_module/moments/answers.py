"""Score curves of one video to its answers: what ranks the samples, and the ranked moments of every query.

Q queries, M samples of a curve.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from xclip_module.config import EvalConfig
from xclip_module.interface import Answer, Curve, Moment, Question
from xclip_module.moments.procedure_order import decode_order, first_in_order
from xclip_module.moments.proposals import Search, find_components, find_moments
from xclip_module.moments.tracks import PROCEDURE, SIMILARITY, Curves, make_curves

# The keys of the section that shape no moment.
_OTHER_KEYS = {"track", "show_moments", "background", "prompt_sets", "two_stage", "v2t", "bootstrap"}


def answer(
    curve: Curve,
    questions: Sequence[Question],
    *,
    track: str,
    stride: float,
    section: EvalConfig,
    orders: Sequence[Sequence[str]] = (),
) -> Answer:
    """Moments of every query under one track, and the curves that rank the samples.

    similarity-only ranks samples by the raw scores; the other tracks by the smoothed curve after the comparison with
    the other queries; +procedure-order lifts a phase's curve where the decoded order puts the phase.

    orders: names of phases in the orders that a procedure may take, for +procedure-order.
    """
    kinds = [question.kind for question in questions]
    curves = make_curves(
        curve.contrast,
        kinds,
        sigmas=[_smooth_seconds(kind, stride, section) / stride for kind in kinds],
        track=track,
        query_norm=section.query_norm,
        temperature=section.softmax_temperature,
    )
    # The last sample reaches to the end of the video, which is rarely a whole stride away.
    edges = np.append(curve.times - stride / 2, curve.duration)
    moments = {
        question.name: _moments_of(row, question.kind, curves, edges, stride, section)
        for row, question in enumerate(questions)
    }
    ranking = curve.contrast if track == SIMILARITY else curves.smooth
    if track == PROCEDURE:
        ranking = ranking.copy()
        for row, span in _spans(curves.smooth, questions, orders).items():
            moments[questions[row].name] = first_in_order(
                curves.smooth[row], moments[questions[row].name], span, edges, nms_tiou=section.nms_tiou
            )
            if span:
                # By the curve's whole range, so that no sample inside stands below one outside.
                ranking[row, slice(*span)] += np.ptp(curves.smooth[row])
    return Answer(curve.video, curve.times, curve.duration, ranking, moments)


def describe(section: EvalConfig, stride: float, kinds: Sequence[str]) -> str:
    """Every parameter of the segmenter in words, and where its value comes from, for the results."""
    parts = []
    if set(kinds) & {"phase", "free"}:
        norm = section.query_norm
        norm += f" of z / {section.softmax_temperature:g}" * (norm == "softmax")
        levels = f" of {section.levels} levels" * (section.generator != "scan")
        parts.append(
            f"{section.generator}{levels}, Gaussian {_smooth_seconds('phase', stride, section):g} s, scan statistic, "
            f"NMS {section.nms_tiou:g}, edges moved up to {_refine_seconds('phase', stride, section):g} s, "
            f"query norm {norm}"
        )
    if "tool" in kinds:
        parts.append(
            f"tools: Otsu, Gaussian {_smooth_seconds('tool', stride, section):g} s, hysteresis "
            f"{section.tool_hysteresis:g}, gaps up to {_gap_seconds(stride, section):g} s joined"
        )
    return "; ".join([*parts, f"{section.moments_per_query} moments kept", _origin(section)])


def _origin(section: EvalConfig) -> str:
    """Where the parameters were tuned: what differs from the defaults is the user's responsibility."""
    default = EvalConfig()
    keys = [key.name for key in dataclasses.fields(section) if key.name not in _OTHER_KEYS]
    changed = [key for key in keys if getattr(section, key) != getattr(default, key)]
    origin = "defaults, chosen on simulated curves over the phase times of Cholec80 videos 1-40"
    return f"set by the user: {', '.join(changed)}; the rest {origin}" if changed else origin


def _smooth_seconds(kind: str, stride: float, section: EvalConfig) -> float:
    if kind == "tool":
        return section.tool_smooth_seconds or stride
    return section.smooth_seconds or 2 * stride


def _refine_seconds(kind: str, stride: float, section: EvalConfig) -> float:
    return section.refine_seconds or _smooth_seconds(kind, stride, section)


def _gap_seconds(stride: float, section: EvalConfig) -> float:
    return section.tool_gap_seconds or 2 * stride


def _moments_of(
    row: int, kind: str, curves: Curves, edges: np.ndarray, stride: float, section: EvalConfig
) -> list[Moment]:
    most = section.moments_per_query
    if kind == "tool":
        gap = _gap_seconds(stride, section) / stride
        return find_components(curves.smooth[row], edges, hysteresis=section.tool_hysteresis, gap=gap, most=most)
    reach = max(1, round(_refine_seconds(kind, stride, section) / stride))
    search = Search(section.generator, section.levels, section.nms_tiou, most, reach)
    return find_moments(curves.smooth[row], curves.sharp[row], edges, search)


def _spans(
    smooth: np.ndarray, questions: Sequence[Question], orders: Sequence[Sequence[str]]
) -> dict[int, tuple[int, int] | None]:
    """Row of each phase -> its range in the decoded order, None = decoded as absent."""
    rows = [row for row, question in enumerate(questions) if question.kind == "phase"]
    if not rows or not orders:
        return {}
    phase_of = {questions[row].name: phase for phase, row in enumerate(rows)}
    # An order may name phases that nobody asked for.
    asked = [[phase_of[name] for name in order if name in phase_of] for order in orders]
    spans = decode_order(smooth[rows], asked)
    return {row: spans.get(phase) for phase, row in enumerate(rows)}
