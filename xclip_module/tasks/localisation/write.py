"""What a run leaves behind: scores, moments, metrics, pictures and the report."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xclip_module.config import Config
from xclip_module.interface import Answer, Corpus, Curve
from xclip_module.reporting.markdown import best_moments, markdown_report
from xclip_module.reporting.page import BestMoments, html_report
from xclip_module.reporting.tables import has_truth
from xclip_module.reporting.verdicts import beaten_controls
from xclip_module.run.launch import Run
from xclip_module.tasks.localisation.judge import Outcome
from xclip_module.tasks.localisation.pictures import draw
from xclip_module.tasks.localisation.ranking import Ranking, ranked_videos, ranking_csv, with_thumbnails
from xclip_module.tasks.localisation.score import Scored, Setup


def write(config: Config, setup: Setup, scored: Scored, outcome: Outcome, *, run: Run, environment: str) -> None:
    """Writes scores.npz, moments.jsonl, metrics.json, bootstrap.npz, pictures/ with their numbers, and the reports."""
    answers = outcome.answers[config.eval.track]
    run.write_bytes("scores.npz", scores_archive(scored.curves, setup.corpus))
    lines = moment_lines(answers, setup.corpus, config.eval.track)
    run.write_text("moments.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    run.write_json("metrics.json", outcome.metrics)
    if outcome.replicates:
        run.write_bytes("bootstrap.npz", _archive(outcome.replicates))
    for split, result in outcome.metrics["splits"].items():
        run.record(split=split, track=config.eval.track, **result["macro"])
    if run.world.is_main:
        _write_reports(config, setup, outcome, run, environment)


def _write_reports(config: Config, setup: Setup, outcome: Outcome, run: Run, environment: str) -> None:
    """report.md, report.html, ranking.csv, and every picture as a file with its numbers beside it."""
    drawn = draw(outcome.metrics, outcome.answers[config.eval.track], setup.corpus)
    training = [drawn.training] if drawn.training else []
    every = [
        *training,
        *drawn.probe,
        *drawn.overview,
        *(one for own in drawn.splits.values() for one in own),
        *drawn.ribbons.values(),
    ]
    for picture in every:
        run.write_bytes(f"pictures/{picture.name}.svg", picture.svg)
        for name, text in picture.csv.items():
            run.write_text(f"pictures/{name}", text)
    is_known = any(has_truth(result) for result in outcome.metrics["splits"].values())
    best = {} if is_known else _best(config, setup, outcome)
    paths = [f"pictures/{picture.name}.svg" for picture in every]
    text = best_moments(best) if best else ""
    run.write_text("report.md", markdown_report(outcome.metrics, answers=text, environment=environment, pictures=paths))
    page = html_report(
        outcome.metrics,
        texts={query.name: query.text for query in setup.corpus.queries},
        pictures=drawn,
        best=best,
        environment=environment,
        replicates=outcome.replicates,
        ranked=_write_ranking(config, setup, outcome, run),
    )
    run.write_text("report.html", page)


def _write_ranking(config: Config, setup: Setup, outcome: Outcome, run: Run) -> Ranking:
    """The order of several own recordings, in ranking.csv too; empty where there is nothing to be ordered."""
    answers = outcome.answers[config.eval.track]
    if not config.data.video or outcome.metrics["splits"] or len(answers) < 2:
        return {}
    ranked = ranked_videos(answers, setup.corpus)
    run.write_text("ranking.csv", ranking_csv(ranked))
    return with_thumbnails(ranked, setup.corpus, timeout_seconds=config.data.decode_timeout_seconds)


def scores_archive(curves: Sequence[Curve], corpus: Corpus) -> bytes:
    """An .npz: "videos" [V], "queries" [Q] (texts), "names" [Q]; per video "<id>/times" [M], "<id>/scores" [Q, M].

    With background sentences also "<id>/background" [M]; the scores are raw all the same.
    """
    arrays = {
        "videos": np.array([curve.video for curve in curves], dtype=str),
        "queries": np.array([query.text for query in corpus.queries], dtype=str),
        "names": np.array([query.name for query in corpus.queries], dtype=str),
    }
    for curve in curves:
        arrays |= {f"{curve.video}/times": curve.times, f"{curve.video}/scores": curve.scores}
        if curve.background is not None:
            arrays[f"{curve.video}/background"] = curve.background
    return _archive(arrays)


def moment_lines(answers: Sequence[Answer], corpus: Corpus, track: str) -> list[dict[str, Any]]:
    """QVHighlights-style lines: qid, query, vid, duration, pred_relevant_windows, and the truth where there is one."""
    split_of = {video.id: video.split for video in corpus.videos}
    lines: list[dict[str, Any]] = []
    for one in answers:
        for query in corpus.queries:
            truth = corpus.moments.get(one.video, {}).get(query.name)
            line = {
                "qid": len(lines),
                "query": query.text,
                "name": query.name,
                "vid": one.video,
                "split": split_of[one.video],
                "track": track,
                "duration": one.duration,
                "pred_relevant_windows": [list(moment) for moment in one.moments[query.name]],
            }
            lines.append(line if truth is None else {**line, "relevant_windows": [list(span) for span in truth]})
    return lines


def summary_text(config: Config, setup: Setup, outcome: Outcome) -> str:
    """What people read at the end: the macro beside its controls, or for one's own recording the best moments."""
    metrics = outcome.metrics
    if not metrics["splits"]:
        return best_moments(_best(config, setup, outcome))
    lines = ["weights are untrained (random): expect chance"] if metrics["untrained"] else []
    for split, result in metrics["splits"].items():
        shown = {**{name: track["macro"] for name, track in result["tracks"].items()}, **result["controls"]}
        for name, row in shown.items():
            cells = [f"{key} {'–' if row[key] is None else format(row[key], '.3f')}" for key in _SHOWN]
            lines.append(f"{split:6}{name:18}{'  '.join(cells)}")
        lines.append(f"{split}: {beaten_controls(result)}")
    return "\n".join(lines)


_SHOWN = ("AUROC", "AUPRC", "prevalence", "mAP@0.5")


def _best(config: Config, setup: Setup, outcome: Outcome) -> BestMoments:
    """The surest moments of each sentence over all videos."""
    best = {}
    for query in setup.corpus.queries:
        rows = [(one.video, *found) for one in outcome.answers[config.eval.track] for found in one.moments[query.name]]
        best[query.text] = sorted(rows, key=lambda row: -row[3])[: config.eval.show_moments]
    return best


def _archive(arrays: Mapping[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()
