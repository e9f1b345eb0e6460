"""From curves to what a run leaves behind: moments, metrics, pictures and the report."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xclip_module.assemble import Scored, Setup, scored_splits
from xclip_module.config import Config, EvalConfig
from xclip_module.datasets.corpus import Corpus
from xclip_module.evaluation.controls import time_prior
from xclip_module.evaluation.localisation import Moment, segments_from_scores
from xclip_module.evaluation.scoring import Curve
from xclip_module.evaluation.summary import prior_curves, summarise
from xclip_module.reporting.plots import timeline
from xclip_module.reporting.report import best_moments, markdown_report
from xclip_module.run import Run

Found = dict[str, dict[str, list[Moment]]]


def localise(curves: Sequence[Curve], corpus: Corpus, stride: float, section: EvalConfig) -> Found:
    """Ranked moments of every video and query."""
    return {
        curve.video: {
            query.name: segments_from_scores(
                curve.times,
                curve.scores[row],
                stride=stride,
                duration=curve.duration,
                smooth_seconds=smoothing(section, stride),
                most=section.moments_per_query,
                nms_tiou=section.nms_tiou,
            )
            for row, query in enumerate(corpus.queries)
        }
        for curve in curves
    }


def smoothing(section: EvalConfig, stride: float) -> float:
    """Standard deviation in seconds of the Gaussian over a curve."""
    return section.smooth_seconds or 2 * stride


def evaluate(config: Config, setup: Setup, scored: Scored, found: Found) -> dict[str, Any]:
    """What metrics.json holds: per split macro, queries and controls, and all that names the protocol."""
    corpus = setup.corpus
    smooth = smoothing(config.eval, setup.sampling.stride_seconds)
    splits = {}
    for split in scored_splits(config, corpus) if corpus.moments else ():
        ids = {video.id for video in corpus.of_split(split)} | {one.id for one in corpus.missing if one.split == split}
        curves = [curve for curve in scored.curves if curve.video in ids]
        names = [query.name for query in corpus.queries]
        splits[split] = {
            "videos": len(curves),
            "skipped": {name: why for name, why in scored.skipped.items() if name in ids},
            **summarise(curves, found, corpus.moments, names),
            "controls": _controls(config, setup, curves, names),
        }
    return {
        "title": f"Zero-shot localisation: {corpus.name}",
        "untrained": setup.is_untrained,
        "protocol": {
            "data": corpus.protocol,
            "model": setup.model.protocol,
            "weights": f"{config.model.weights} ({setup.model.stored_digest()[:12]})",
            "clips": "{:g} s, {} frames, every {:g} s".format(*setup.sampling),
            "picture": f"{setup.model.picture.size} px, crop {config.data.crop}",
            "precision": setup.precision,
            "segments": f"similarity-only: watershed and scan statistic, smoothed by {smooth:g} s",
        },
        "splits": splits,
    }


def write(
    config: Config,
    setup: Setup,
    scored: Scored,
    found: Found,
    metrics: Mapping[str, Any],
    *,
    run: Run,
    environment: str,
) -> None:
    """Writes scores.npz, moments.jsonl, metrics.json, a timeline a video, and report.md."""
    run.write_bytes("scores.npz", scores_archive(scored.curves, setup.corpus))
    run.write_text(
        "moments.jsonl", "".join(json.dumps(line) + "\n" for line in moment_lines(scored, setup.corpus, found))
    )
    run.write_json("metrics.json", metrics)
    for split, result in metrics["splits"].items():
        run.record(split=split, **result["macro"])
    pictures = (
        [_write_timeline(curve, setup.corpus, found, run) for curve in scored.curves] if run.world.is_main else []
    )
    answers = "" if metrics["splits"] else summary_text(config, setup, found, metrics)
    run.write_text("report.md", markdown_report(metrics, answers=answers, environment=environment, pictures=pictures))


def scores_archive(curves: Sequence[Curve], corpus: Corpus) -> bytes:
    """An .npz: "videos" [V], "queries" [Q] (texts), "names" [Q]; per video "<id>/times" [M], "<id>/scores" [Q, M]."""
    arrays = {
        "videos": np.array([curve.video for curve in curves], dtype=str),
        "queries": np.array([query.text for query in corpus.queries], dtype=str),
        "names": np.array([query.name for query in corpus.queries], dtype=str),
    }
    for curve in curves:
        arrays |= {f"{curve.video}/times": curve.times, f"{curve.video}/scores": curve.scores}
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def moment_lines(scored: Scored, corpus: Corpus, found: Found) -> list[dict[str, Any]]:
    """QVHighlights-style lines: qid, query, vid, duration, pred_relevant_windows, and the truth where there is one."""
    split_of = {video.id: video.split for video in corpus.videos}
    lines: list[dict[str, Any]] = []
    for curve in scored.curves:
        for query in corpus.queries:
            truth = corpus.moments.get(curve.video, {}).get(query.name)
            line = {
                "qid": len(lines),
                "query": query.text,
                "name": query.name,
                "vid": curve.video,
                "split": split_of[curve.video],
                "duration": curve.duration,
                "pred_relevant_windows": [list(moment) for moment in found[curve.video][query.name]],
            }
            lines.append(line if truth is None else {**line, "relevant_windows": [list(span) for span in truth]})
    return lines


def summary_text(config: Config, setup: Setup, found: Found, metrics: Mapping[str, Any]) -> str:
    """What people read at the end: the macro beside its controls, or for one's own recording the best moments."""
    if not metrics["splits"]:
        best: dict[str, list[tuple[str, float, float, float]]] = {}
        for query in setup.corpus.queries:
            rows = [(video, *moment) for video, by_query in found.items() for moment in by_query[query.name]]
            best[query.text] = sorted(rows, key=lambda row: -row[3])[: config.eval.show_moments]
        return best_moments(best)
    lines = ["weights are untrained (random): expect chance"] if metrics["untrained"] else []
    for split, result in metrics["splits"].items():
        shown = {"model": result["macro"], **result["controls"]}
        for name, row in shown.items():
            cells = [f"{key} {'–' if row[key] is None else format(row[key], '.3f')}" for key in _SHOWN]
            lines.append(f"{split:6}{name:12}{'  '.join(cells)}")
    return "\n".join(lines)


_SHOWN = ("AUROC", "AUPRC", "prevalence", "mAP@0.5")


def _controls(config: Config, setup: Setup, curves: Sequence[Curve], names: Sequence[str]) -> dict[str, Any]:
    """The time prior of the training videos' labels, through the same segmenter; none without training videos."""
    corpus = setup.corpus
    train = [video for video in corpus.of_split("train") if video.id in corpus.moments]
    if not train:
        return {}

    def prior(name: str, times: np.ndarray, duration: float) -> np.ndarray:
        truth = [(corpus.moments[video.id].get(name, ()), video.label_seconds) for video in train]
        return time_prior(truth, times, duration)

    blind = prior_curves(curves, names, prior)
    moments = localise(blind, corpus, setup.sampling.stride_seconds, config.eval)
    return {"time prior": summarise(blind, moments, corpus.moments, names)["macro"]}


def _write_timeline(curve: Curve, corpus: Corpus, found: Found, run: Run) -> str:
    truth = corpus.moments.get(curve.video, {})
    figure = timeline(
        curve.times,
        curve.scores,
        [query.name for query in corpus.queries],
        truth=[truth.get(query.name) for query in corpus.queries],
        moments=[[moment[:2] for moment in found[curve.video][query.name][:3]] for query in corpus.queries],
        duration=curve.duration,
        title=f"{curve.video}: {len(curve.times)} clips, {len(corpus.queries)} queries",
    )
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    name = f"timelines/{curve.video.replace('/', '_')}.png"
    run.write_bytes(name, file.getvalue())
    return name
