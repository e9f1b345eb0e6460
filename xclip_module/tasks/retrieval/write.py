"""A retrieval run from config to results: every split's matrix, its metrics, and the files that people read.

Q texts, C videos.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xclip_module.config import Config
from xclip_module.datasets.retrieval.benchmarks import find_benchmark
from xclip_module.errors import ConfigError, DataError
from xclip_module.evaluation import retrieval
from xclip_module.evaluation.retrieval_dump import ranks_csv, similarity_archive
from xclip_module.evaluation.retrieval_scoring import check_two_stage
from xclip_module.interface import VideoTextModel
from xclip_module.reporting.retrieval.page import Hit, TopVideo, retrieval_html, retrieval_markdown
from xclip_module.reporting.training_facts import kept_step
from xclip_module.reporting.training_picture import training_picture
from xclip_module.run import precision
from xclip_module.run.distributed import World
from xclip_module.run.launch import Run
from xclip_module.tasks.localisation import score as assemble
from xclip_module.tasks.retrieval import score as retrieving
from xclip_module.tasks.retrieval.pictures import retrieval_pictures
from xclip_module.tasks.retrieval.score import Gallery, Matrix
from xclip_module.tasks.sentences import UNTRAINED
from xclip_module.video.inspect import probe
from xclip_module.video.thumbnails import thumbnails

# So many of the best and of the worst queries are shown, each with so many of its answers.
_QUERIES, _ANSWERS = 8, 3

log = logging.getLogger(__name__)


class Result(NamedTuple):
    """One split: what was scored, the scores, and what metrics.json holds of it."""

    gallery: Gallery
    matrix: Matrix
    numbers: dict[str, Any]


def search(
    config: Config,
    run: Run,
    *,
    training: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Scores every configured split of a benchmark and writes all results; returns metrics.json.

    training: how the weights were trained, see `training_facts`.  settings: what the environment report adds of it.
    """
    galleries = {split: retrieving.load_gallery(config, split) for split in scored_splits(config)}
    model = assemble.build_model(config, run.world)
    if config.eval.two_stage:
        check_two_stage(model)
    environment = run.describe_environment({**settings_of(config, model, run.world), **(settings or {})})
    log.info("%s\n", environment)
    results = {split: _score(config, model, gallery, run) for split, gallery in galleries.items()}
    metrics = _metrics(config, settings_of(config, model, run.world), results, training)
    _write(config, run, metrics, results, environment)
    log.info("%s\nreport: %s", summary_text(metrics), run.folder / "report.html")
    return metrics


def scored_splits(config: Config) -> tuple[str, ...]:
    """The configured splits that the benchmark has; its reported one where it has none of them.

    Raises ConfigError for a split that is none.
    """
    known = find_benchmark(config.data.name).splits
    for split in config.data.evaluate:
        if split not in {"train", "val", "test", "all"}:
            raise ConfigError(f"data.evaluate={split}", why=f"{config.data.name} has {', '.join(known)}")
    chosen = tuple(dict.fromkeys(split for split in config.data.evaluate if split in known))
    reported = retrieving.reported_split(config)
    if not chosen:
        asked = ", ".join(config.data.evaluate) or "nothing"
        log.warning("%s has no split %s: its reported split %s is scored", config.data.name, asked, reported)
    return chosen or (reported,)


def settings_of(config: Config, model: VideoTextModel, world: World) -> dict[str, Any]:
    """What the environment report adds to machine and versions."""
    return {
        "data": config.data.name,
        "weights": config.model.weights,
        "weights_digest": model.digest(),
        "features_digest": model.stored_digest(),
        "model": model.protocol,
        "precision": precision.choose(config.run.precision, world.device),
        "attention": config.model.attention,
        "seed": config.run.seed,
        "frames": retrieving.choose_frames(config, model).protocol,
        "word_slots": model.text_slots,
        "picture_size": model.picture.size,
        "crop": config.data.crop,
        "decoder": config.data.decoder,
    }


def summary_text(metrics: Mapping[str, Any]) -> str:
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


def _score(config: Config, model: VideoTextModel, gallery: Gallery, run: Run) -> Result:
    run.status.update(phase=f"videos of {gallery.split.split}")
    gallery, video = retrieving.embed_videos(config, model, gallery, run)
    text = retrieving.embed_texts(config, model, gallery.split.texts, run.world)
    run.status.update(phase=f"scores of {gallery.split.split}")
    matrix = retrieving.similarity(config, model, text, video, run.world)
    split, protocol = gallery.split, config.eval.v2t
    numbers = {
        "texts": len(split.texts),
        "videos": len(split.videos),
        "of_texts": gallery.of_texts,
        "of_videos": gallery.of_videos,
        "metrics": retrieving.evaluated(matrix.similarity, split, protocol),
        "chance": retrieval.chance(split.text_to_video, len(split.videos), protocol=protocol),
        "two_stage": matrix.two_stage,
    }
    return Result(gallery, matrix, numbers)


def _metrics(
    config: Config, settings: Mapping[str, Any], results: Mapping[str, Result], training: Mapping[str, Any] | None
) -> dict[str, Any]:
    is_trained = training is not None and kept_step(training) > 0
    first = next(iter(results.values()))
    tuned = ", fine-tuned" if is_trained else ""
    keep = config.eval.two_stage
    return {
        "kind": "retrieval",
        "title": f"{'Fine-tuned retrieval' if training else 'Retrieval'}: {config.data.name}",
        "untrained": config.model.weights.startswith(UNTRAINED) and not is_trained,
        "protocol": {
            "data": "; ".join(result.gallery.split.protocol for result in results.values()),
            "annotations": ", ".join(path.name for path in first.gallery.split.sources),
            "model": settings["model"],
            "weights": f"{config.model.weights}{tuned} ({settings['weights_digest'][:12]})",
            "frames": settings["frames"],
            "words": settings["word_slots"],
            "picture": f"{settings['picture_size']} px, crop {config.data.crop}",
            "precision": settings["precision"],
            "scoring": f"two stages, {keep} videos a text exactly" if keep else "exact",
            "v2t": config.eval.v2t,
            "ties": "count against us",
        },
        "benchmark": config.data.name,
        "skipped": {video: why for result in results.values() for video, why in result.gallery.skipped.items()},
        "splits": {split: result.numbers for split, result in results.items()},
        **({} if training is None else {"training": dict(training)}),
    }


def _write(
    config: Config, run: Run, metrics: Mapping[str, Any], results: Mapping[str, Result], environment: str
) -> None:
    """similarity.npz and ranks.csv of every split (the reported one's without its name), metrics, pictures, reports."""
    if not run.world.is_main:
        return
    reported = retrieving.reported_split(config)
    main = reported if reported in results else list(results)[-1]
    for split, (gallery, matrix, numbers) in results.items():
        names = {"texts": gallery.split.texts, "videos": gallery.split.videos}
        end = "" if split == main else f"_{split}"
        run.write_bytes(f"similarity{end}.npz", similarity_archive(*_scores(matrix, gallery), **names))
        run.write_text(f"ranks{end}.csv", ranks_csv(*_scores(matrix, gallery), **names))
        run.record(split=split, **numbers["metrics"])
    run.write_json("metrics.json", metrics)
    _write_reports(config, run, metrics, results, main, environment)


def _scores(matrix: Matrix, gallery: Gallery) -> tuple[np.ndarray, np.ndarray]:
    return matrix.similarity, gallery.split.text_to_video


def _write_reports(
    config: Config, run: Run, metrics: Mapping[str, Any], results: Mapping[str, Result], main: str, environment: str
) -> None:
    pictures = []
    for split, (gallery, matrix, _) in results.items():
        pictures += retrieval_pictures(matrix.similarity, gallery.split.text_to_video, split, protocol=config.eval.v2t)
    course = training_picture(metrics)
    for picture in [*pictures, *([course] if course else [])]:
        run.write_bytes(f"pictures/{picture.name}.svg", picture.svg)
        for name, text in picture.csv.items():
            run.write_text(f"pictures/{name}", text)
    hits = _hits(results[main], timeout_seconds=config.data.decode_timeout_seconds)
    paths = [f"pictures/{picture.name}.svg" for picture in pictures]
    text = retrieval_markdown(metrics, pictures=paths, hits=hits, environment=environment)
    run.write_text("report.md", text)
    page = retrieval_html(metrics, pictures=pictures, hits=hits, environment=environment, training_picture=course)
    run.write_text("report.html", page)


def _hits(result: Result, *, timeout_seconds: float) -> dict[str, list[Hit]]:
    """The queries with the worst and the best ranks, equal ranks in the order of the data set, with their answers."""
    split, scores = result.gallery.split, result.matrix.similarity
    places = retrieval.ranks(scores, split.text_to_video).t2v
    order = np.argsort(places, kind="stable")
    chosen = {"worst": order[::-1][:_QUERIES], "best": order[:_QUERIES]}
    top = retrieval.top_videos(scores, _ANSWERS)
    shown = {int(video) for rows in chosen.values() for row in rows for video in top.videos[row]}
    files = {video: split.files[split.videos[video]] for video in shown}
    small = {video: _middle(path, split.spans[video], timeout_seconds) for video, path in files.items()}

    def hit(row: int) -> Hit:
        own = int(split.text_to_video[row])
        found = [
            TopVideo(split.videos[video], float(score), video == own, small[video])
            for video, score in zip(top.videos[row].tolist(), top.scores[row], strict=True)
        ]
        return Hit(split.texts[row], split.videos[own], int(places[row]) + 1, found)

    return {name: [hit(int(row)) for row in rows] for name, rows in chosen.items()}


def _middle(path: Path, span: tuple[float, float] | None, timeout_seconds: float) -> bytes:
    """A picture of the middle of a clip; b"" where there is none."""
    try:
        duration = probe(path, timeout_seconds=timeout_seconds).duration
    except DataError as error:
        log.warning("no thumbnail: %s", error)
        return b""
    start, end = span or (0.0, duration)
    found = thumbnails(path, [(min(start, duration) + min(end, duration)) / 2], timeout_seconds=timeout_seconds)
    return found[0] if found else b""
