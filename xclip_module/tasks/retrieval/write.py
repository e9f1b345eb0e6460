"""What a retrieval run leaves behind: matrices, ranks, metrics, pictures and reports.

Q texts, C videos.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xclip_module.config import DataConfig
from xclip_module.datasets.retrieval.benchmarks import find_benchmark
from xclip_module.errors import DataError
from xclip_module.evaluation import retrieval
from xclip_module.evaluation.retrieval_dump import ranks_csv, similarity_archive
from xclip_module.reporting.retrieval.page import Hit, TopVideo, retrieval_html, retrieval_markdown
from xclip_module.reporting.training_picture import training_picture
from xclip_module.run.folder import Run
from xclip_module.tasks.retrieval.judge import RetrievalResults
from xclip_module.tasks.retrieval.pictures import retrieval_pictures
from xclip_module.tasks.retrieval.score import SplitScores
from xclip_module.video.inspect import probe
from xclip_module.video.thumbnails import thumbnails

# So many of the best and of the worst queries are shown, each with so many of its answers.
_QUERIES, _ANSWERS = 8, 3

log = logging.getLogger(__name__)


def write(scores: dict[str, SplitScores], results: RetrievalResults, run: Run, *, data: DataConfig, v2t: str) -> None:
    """similarity.npz and ranks.csv of every split, metrics, pictures, reports, and the last words on the terminal.

    The files of the reported split have the plain names, of a run without it those of the last one.
    """
    if not run.world.is_main:
        return
    reported = find_benchmark(data.name).reported
    main = reported if reported in scores else list(scores)[-1]
    for split, (gallery, similarity, _) in scores.items():
        names = {"texts": gallery.split.texts, "videos": gallery.split.videos}
        end = "" if split == main else f"_{split}"
        arrays = similarity, gallery.split.text_to_video
        run.write_bytes(f"similarity{end}.npz", similarity_archive(*arrays, **names))
        run.write_text(f"ranks{end}.csv", ranks_csv(*arrays, **names))
        run.record(split=split, **results.metrics["splits"][split]["metrics"])
    run.write_json("metrics.json", results.metrics)
    hits = _hits(scores[main], timeout_seconds=data.decode_timeout_seconds)
    _write_reports(scores, results, hits, run, v2t=v2t)
    log.info("%s\nreport: %s", _summary(results.metrics), run.folder / "report.html")


def _write_reports(
    scores: Mapping[str, SplitScores], results: RetrievalResults, hits: dict[str, list[Hit]], run: Run, *, v2t: str
) -> None:
    pictures = []
    for split, (gallery, similarity, _) in scores.items():
        pictures += retrieval_pictures(similarity, gallery.split.text_to_video, split, protocol=v2t)
    course = training_picture(results.metrics)
    for picture in [*pictures, *([course] if course else [])]:
        run.write_bytes(f"pictures/{picture.name}.svg", picture.svg)
        for name, text in picture.csv.items():
            run.write_text(f"pictures/{name}", text)
    paths = [f"pictures/{picture.name}.svg" for picture in pictures]
    shared: dict[str, Any] = {"hits": hits, "environment": run.environment}
    run.write_text("report.md", retrieval_markdown(results.metrics, pictures=paths, **shared))
    page = retrieval_html(results.metrics, pictures=pictures, training_picture=course, **shared)
    run.write_text("report.html", page)


def _summary(metrics: Mapping[str, Any]) -> str:
    """What people read at the end: both directions of every split, chance below."""
    lines = ["weights are untrained (random): expect chance"] if metrics["untrained"] else []
    for split, result in metrics["splits"].items():
        lines.append(f"{split}: {result['texts']} of {result['of_texts']} texts, {result['videos']} videos")
        for name, row in (("", result["metrics"]), (" chance", result["chance"])):
            for way in ("t2v", "v2t"):
                cells = [f"R@{k} {100 * row[f'{way}/R@{k}']:5.1f}" for k in retrieval.KS]
                cells += [f"{key} {row[f'{way}/{key}']:.1f}" for key in ("MdR", "MnR")]
                lines.append(f"  {way + name:11}{'  '.join(cells)}")
        if result["two_stage"]:
            facts = ", ".join(f"{name} {value:.4g}" for name, value in result["two_stage"].items())
            lines.append(f"  two stages: {facts}")
    return "\n".join(lines)


def _hits(scores: SplitScores, *, timeout_seconds: float) -> dict[str, list[Hit]]:
    """The queries with the worst and the best ranks, equal ranks in the order of the data set, with their answers."""
    split, similarity = scores.gallery.split, scores.similarity
    ranks = retrieval.ranks(similarity, split.text_to_video).t2v
    order = np.argsort(ranks, kind="stable")
    chosen = {"worst": order[::-1][:_QUERIES], "best": order[:_QUERIES]}
    top = retrieval.top_videos(similarity, _ANSWERS)
    shown = {int(video) for rows in chosen.values() for row in rows for video in top.videos[row]}
    files = {video: split.files[split.videos[video]] for video in shown}
    small = {video: _middle(path, split.spans[video], timeout_seconds) for video, path in files.items()}

    def hit(row: int) -> Hit:
        owner = int(split.text_to_video[row])
        answers = [
            TopVideo(split.videos[video], float(score), video == owner, small[video])
            for video, score in zip(top.videos[row].tolist(), top.scores[row], strict=True)
        ]
        return Hit(split.texts[row], split.videos[owner], int(ranks[row]) + 1, answers)

    return {name: [hit(int(row)) for row in rows] for name, rows in chosen.items()}


def _middle(path: Path, span: tuple[float, float] | None, timeout_seconds: float) -> bytes:
    """A picture of the middle of a clip; b"" where there is none."""
    try:
        duration = probe(path, timeout_seconds=timeout_seconds).duration
    except DataError as error:
        log.warning("no thumbnail: %s", error)
        return b""
    start, end = span or (0.0, duration)
    pictures = thumbnails(path, [(min(start, duration) + min(end, duration)) / 2], timeout_seconds=timeout_seconds)
    return pictures[0] if pictures else b""
