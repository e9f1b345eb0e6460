"""What a run leaves behind: scores, moments, metrics, pictures and the report."""

import io
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xclip_module.config import DataConfig, EvalConfig
from xclip_module.interface import Answer, Corpus, Curve, Moment
from xclip_module.reporting.chart import csv_text
from xclip_module.reporting.page import MOST_CARDS, BestMoments, RankedVideo, best_moments, html_report, markdown_report
from xclip_module.reporting.tables import has_truth
from xclip_module.reporting.verdicts import beaten_controls
from xclip_module.run.folder import Run
from xclip_module.tasks.localisation.judge import LocalisationResults
from xclip_module.tasks.localisation.pictures import draw
from xclip_module.tasks.localisation.score import LocalisationScores
from xclip_module.video.thumbnails import thumbnails

# Sentence -> one's own recordings, in the order of their best moments.
Ranking = Mapping[str, Sequence[RankedVideo]]
# What the last words on the terminal hold of each row.
_SHOWN = ("AUROC", "AUPRC", "prevalence", "mAP@0.5")

log = logging.getLogger(__name__)


def write(
    corpus: Corpus,
    scores: LocalisationScores,
    results: LocalisationResults,
    run: Run,
    *,
    data: DataConfig,
    evaluation: EvalConfig,
) -> None:
    """scores.npz, moments.jsonl, metrics.json, bootstrap.npz, pictures/ with their numbers, the reports, last words."""
    answers = results.answers[evaluation.track]
    run.write_bytes("scores.npz", scores_archive(scores.curves, corpus))
    lines = moment_lines(answers, corpus, evaluation.track)
    run.write_text("moments.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    run.write_json("metrics.json", results.metrics)
    if results.replicates:
        run.write_bytes("bootstrap.npz", _archive(results.replicates))
    for split, result in results.metrics["splits"].items():
        run.record(split=split, track=evaluation.track, **result["macro"])
    if run.world.is_main:
        _write_reports(corpus, results, run, data=data, evaluation=evaluation)
        log.info("%s\nreport: %s", _summary(corpus, results, evaluation), run.folder / "report.html")


def _write_reports(
    corpus: Corpus, results: LocalisationResults, run: Run, *, data: DataConfig, evaluation: EvalConfig
) -> None:
    """report.md, report.html, ranking.csv, and every picture as a file with its numbers beside it."""
    answers = results.answers[evaluation.track]
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
    best = {} if has_any_truth else _best(answers, corpus, most=evaluation.show_moments)
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


def _summary(corpus: Corpus, results: LocalisationResults, evaluation: EvalConfig) -> str:
    """What people read at the end: the macro beside its controls, or for one's own recording the best moments."""
    metrics = results.metrics
    if not metrics["splits"]:
        return best_moments(_best(results.answers[evaluation.track], corpus, most=evaluation.show_moments))
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


def ranked_videos(answers: Sequence[Answer], corpus: Corpus) -> dict[str, list[RankedVideo]]:
    """Per sentence all videos by the highest score in their best moment; equal ones by name. No thumbnails.

    A moment's own score says how far it stands out in its video, which does not compare videos; the scores of samples
    do under the track similarity-only, whose ranking curves are raw. A video in which nothing stands out, such as one
    of a single window, counts as one moment.
    """
    ranked = {}
    for row, query in enumerate(corpus.queries):
        videos = []
        for answer in answers:
            whole = [Moment(0.0, answer.duration, 0.0)]
            best = max(answer.moments[query.name] or whole, key=lambda moment: moment.score)
            is_inside = (best.start <= answer.times) & (answer.times < best.end)
            score = float(answer.ranking[row][is_inside if is_inside.any() else slice(None)].max())
            videos.append(RankedVideo(answer.video, score, best.start, best.end))
        ranked[query.text] = sorted(videos, key=lambda video: (-video.score, video.video))
    return ranked


def with_thumbnails(ranked: Ranking, corpus: Corpus, *, timeout_seconds: float) -> dict[str, list[RankedVideo]]:
    """The same with a picture of the middle of each moment that a page shows; every file is read once at most."""
    times: dict[str, list[float]] = {}
    for rows in ranked.values():
        for row in rows[:MOST_CARDS]:
            times.setdefault(row.video, []).append(_middle(row))
    pictures: dict[tuple[str, float], bytes] = {}
    for video in corpus.videos:
        wanted = times.get(video.id, [])
        made = thumbnails(video.source, wanted, timeout_seconds=timeout_seconds) if wanted else []
        pictures |= {(video.id, time): picture for time, picture in zip(wanted, made, strict=False)}
    return {
        query: [row._replace(thumbnail=pictures.get((row.video, _middle(row)), b"")) for row in rows]
        for query, rows in ranked.items()
    }


def ranking_csv(ranked: Ranking) -> str:
    """A line per sentence and video: query, rank (first = 1), video, score, start and end in seconds."""
    lines: list[Sequence[Any]] = [
        (query, place, row.video, float(row.score), float(row.start), float(row.end))
        for query, rows in ranked.items()
        for place, row in enumerate(rows, 1)
    ]
    return csv_text(("query", "rank", "video", "score", "start", "end"), lines)


def _middle(row: RankedVideo) -> float:
    return (row.start + row.end) / 2
