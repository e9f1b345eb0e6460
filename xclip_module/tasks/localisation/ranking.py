"""Which of one's own recordings holds what a sentence says: videos in the order of their best moments."""

from collections.abc import Mapping, Sequence
from typing import Any

from xclip_module.interface import Answer, Corpus, Moment
from xclip_module.reporting.chart import csv_text
from xclip_module.reporting.page import MOST_CARDS, RankedVideo
from xclip_module.video.thumbnails import thumbnails

# Sentence -> videos, best first.
Ranking = Mapping[str, Sequence[RankedVideo]]


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
