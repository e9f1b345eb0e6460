"""The report of a retrieval run: `report.html`, one file that needs nothing beside it, and `report.md`.

metrics: what metrics.json holds, with "kind" "retrieval"; of each split see `recall_tables`, of "training"
`training_facts`. Captions are foreign text and stay text.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from xclip_module.reporting import verdicts
from xclip_module.reporting.chart import Chart
from xclip_module.reporting.page import training_parts
from xclip_module.reporting.retrieval import recall_tables
from xclip_module.reporting.template import Card, card, embed, render

_TEMPLATES = Path(__file__).with_name("templates")
_HEADINGS = {"worst": "Worst queries", "best": "Best queries"}


class TopVideo(NamedTuple):
    """One of the best answers to a query; thumbnail: a JPEG file, empty = none."""

    video: str
    score: float
    is_own: bool
    thumbnail: bytes = b""


class Hit(NamedTuple):
    """A query with its own video, the rank of that (1 = first, ties count against it), and its top answers in order."""

    query: str
    video: str
    rank: int
    top: Sequence[TopVideo]


def retrieval_html(
    metrics: Mapping[str, Any],
    *,
    pictures: Sequence[Chart],
    hits: Mapping[str, Sequence[Hit]],
    environment: str,
    training_picture: Chart | None,
) -> str:
    """The page of one run.

    pictures: "recall_<split>" and "ranks_<split>".  hits: of "worst" and "best".  environment: the block to paste.
    """
    parts = _parts(metrics, hits, training_parts(metrics.get("training"), training_picture))
    sections = [_section(split, metrics, pictures) for split in metrics["splits"]]
    return render(_TEMPLATES / "retrieval.html", **parts, sections=sections, environment=environment)


def retrieval_markdown(
    metrics: Mapping[str, Any], *, pictures: Sequence[str], hits: Mapping[str, Sequence[Hit]], environment: str
) -> str:
    """The short form as Markdown; pictures: paths relative to the run folder, the rest as for the page."""
    parts = _parts(metrics, hits, training_parts(metrics.get("training")))
    sections = [_section(split, metrics) for split in metrics["splits"]]
    paths = list(pictures)
    text = render(_TEMPLATES / "retrieval.md", **parts, sections=sections, pictures=paths, environment=environment)
    return f"{text}\n"


def _parts(
    metrics: Mapping[str, Any], hits: Mapping[str, Sequence[Hit]], training: dict[str, Any] | None
) -> dict[str, Any]:
    """What both templates show."""
    return {
        "metrics": metrics,
        "untrained": verdicts.UNTRAINED if metrics["untrained"] else "",
        "published": recall_tables.published_table(metrics),
        "sources": recall_tables.sources(metrics),
        "groups": [(_HEADINGS[key], [_answers(hit) for hit in group]) for key, group in hits.items() if group],
        "training": training,
        "choice": recall_tables.choice_words(metrics) if training else None,
        "epochs": recall_tables.last_and_best(metrics["training"]) if training else None,
    }


def _section(split: str, metrics: Mapping[str, Any], pictures: Sequence[Chart] = ()) -> dict[str, Any]:
    """What the templates show of one split."""
    result = metrics["splits"][split]
    names = {f"{kind}_{split}" for kind in ("recall", "ranks")}
    return {
        "name": split,
        "size": recall_tables.size(result),
        "partial": recall_tables.partial_words(result),
        "words": recall_tables.of_100_texts(result),
        "headline": recall_tables.headline(result, str(metrics["protocol"].get("v2t", ""))),
        "two_stage": recall_tables.two_stage_words(result),
        "pictures": [embed(chart) for chart in pictures if chart.name in names],
    }


def _answers(hit: Hit) -> dict[str, Any]:
    """What the templates show of one query."""
    first = f"; first is {hit.top[0].video}" if hit.top and not hit.top[0].is_own else ""
    return {
        "query": hit.query,
        "words": _own_words(hit),
        "short": f"{hit.video} has rank {hit.rank}{first}",
        "cards": [_card(number, video, hit) for number, video in enumerate(hit.top, 1)],
    }


def _card(number: int, video: TopVideo, hit: Hit) -> Card:
    # The own video's place in the list may be better than its rank, in which ties count against it.
    score = f"score {video.score:.4g}"
    words = (f"own video, rank {hit.rank}", score) if video.is_own else (f"{number}. {score}",)
    return card(video.thumbnail, video.video, *words, is_marked=video.is_own)


def _own_words(hit: Hit) -> str:
    words = f"Its own video, {hit.video}, has rank {hit.rank}"
    return f"{words}." if any(video.is_own for video in hit.top) else f"{words} and is not among these."
