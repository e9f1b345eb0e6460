"""What a run leaves behind: scores, moments, metrics, pictures and the report."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xclip_module.config import DataConfig, EvalConfig
from xclip_module.interface import Answer, Corpus, Curve
from xclip_module.reporting.page import BestMoments, best_moments, html_report, markdown_report
from xclip_module.reporting.tables import has_truth
from xclip_module.reporting.verdicts import beaten_controls
from xclip_module.run.folder import Run
from xclip_module.tasks.localisation.judge import LocalisationResults
from xclip_module.tasks.localisation.pictures import draw
from xclip_module.tasks.localisation.ranking import Ranking, ranked_videos, ranking_csv, with_thumbnails
from xclip_module.tasks.localisation.score import LocalisationScores

# What the last words on the terminal hold of each row.
_SHOWN = ("AUROC", "AUPRC", "prevalence", "mAP@0.5")


def write(
    corpus: Corpus,
    scores: LocalisationScores,
    results: LocalisationResults,
    run: Run,
    *,
    data: DataConfig,
    judging: EvalConfig,
) -> None:
    """Writes scores.npz, moments.jsonl, metrics.json, bootstrap.npz, pictures/ with their numbers, and the reports."""
    answers = results.answers[judging.track]
    run.write_bytes("scores.npz", scores_archive(scores.curves, corpus))
    lines = moment_lines(answers, corpus, judging.track)
    run.write_text("moments.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    run.write_json("metrics.json", results.metrics)
    if results.replicates:
        run.write_bytes("bootstrap.npz", _archive(results.replicates))
    for split, result in results.metrics["splits"].items():
        run.record(split=split, track=judging.track, **result["macro"])
    if run.world.is_main:
        _write_reports(corpus, results, run, data=data, judging=judging)


def _write_reports(
    corpus: Corpus, results: LocalisationResults, run: Run, *, data: DataConfig, judging: EvalConfig
) -> None:
    """report.md, report.html, ranking.csv, and every picture as a file with its numbers beside it."""
    answers = results.answers[judging.track]
    drawn = draw(results.metrics, answers, corpus)
    every = [
        *([drawn.training] if drawn.training else []),
        *drawn.probe,
        *drawn.overview,
        *(picture for of_split in drawn.splits.values() for picture in of_split),
        *drawn.ribbons.values(),
    ]
    for picture in every:
        run.write_bytes(f"pictures/{picture.name}.svg", picture.svg)
        for name, text in picture.csv.items():
            run.write_text(f"pictures/{name}", text)
    has_any_truth = any(has_truth(result) for result in results.metrics["splits"].values())
    best = {} if has_any_truth else _best(answers, corpus, most=judging.show_moments)
    markdown = markdown_report(
        results.metrics,
        answers=best_moments(best) if best else "",
        environment=run.environment,
        pictures=[f"pictures/{picture.name}.svg" for picture in every],
    )
    run.write_text("report.md", markdown)
    page = html_report(
        results.metrics,
        texts={query.name: query.text for query in corpus.queries},
        pictures=drawn,
        best=best,
        environment=run.environment,
        replicates=results.replicates,
        ranked=_write_ranking(corpus, results, answers, run, data),
    )
    run.write_text("report.html", page)


def _write_ranking(
    corpus: Corpus, results: LocalisationResults, answers: Sequence[Answer], run: Run, data: DataConfig
) -> Ranking:
    """The order of several own recordings, in ranking.csv too; empty where there is nothing to be ordered."""
    if not data.video or results.metrics["splits"] or len(answers) < 2:
        return {}
    ranked = ranked_videos(answers, corpus)
    run.write_text("ranking.csv", ranking_csv(ranked))
    return with_thumbnails(ranked, corpus, timeout_seconds=data.decode_timeout_seconds)


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
    for answer in answers:
        for query in corpus.queries:
            truth = corpus.moments.get(answer.video, {}).get(query.name)
            line = {
                "qid": len(lines),
                "query": query.text,
                "name": query.name,
                "vid": answer.video,
                "split": split_of[answer.video],
                "track": track,
                "duration": answer.duration,
                "pred_relevant_windows": [list(moment) for moment in answer.moments[query.name]],
            }
            lines.append(line if truth is None else {**line, "relevant_windows": [list(span) for span in truth]})
    return lines


def summary_text(corpus: Corpus, results: LocalisationResults, judging: EvalConfig) -> str:
    """What people read at the end: the macro beside its controls, or for one's own recording the best moments."""
    metrics = results.metrics
    if not metrics["splits"]:
        return best_moments(_best(results.answers[judging.track], corpus, most=judging.show_moments))
    lines = ["weights are untrained (random): expect chance"] if metrics["untrained"] else []
    for split, result in metrics["splits"].items():
        rows = {**{name: track["macro"] for name, track in result["tracks"].items()}, **result["controls"]}
        for name, row in rows.items():
            cells = [f"{key} {'–' if row[key] is None else format(row[key], '.3f')}" for key in _SHOWN]
            lines.append(f"{split:6}{name:18}{'  '.join(cells)}")
        lines.append(f"{split}: {beaten_controls(result)}")
    return "\n".join(lines)


def _best(answers: Sequence[Answer], corpus: Corpus, *, most: int) -> BestMoments:
    """The surest moments of each sentence over all videos."""
    best = {}
    for query in corpus.queries:
        rows = [(answer.video, *moment) for answer in answers for moment in answer.moments[query.name]]
        best[query.text] = sorted(rows, key=lambda row: -row[3])[:most]
    return best


def _archive(arrays: Mapping[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()
