"""The report of a retrieval run: `report.html`, one file that needs nothing beside it, and `report.md`.

metrics: what metrics.json holds, with "kind" "retrieval"; of each split see `retrieval_tables`, of "training"
`training`. Captions are foreign text and stay text.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from xclip_module.reporting import cards, markdown, training, verdicts
from xclip_module.reporting.cards import Card
from xclip_module.reporting.page import embed, render, training_parts
from xclip_module.reporting.picture import Picture
from xclip_module.reporting.retrieval import tables as retrieval_tables

_HEADINGS = {"worst": "Worst queries", "best": "Best queries"}


class Found(NamedTuple):
    """One answer to a query; thumbnail: a JPEG file, empty = none."""

    video: str
    score: float
    is_own: bool
    thumbnail: bytes = b""


class Hit(NamedTuple):
    """A query with its own video, the rank of that (1 = first, ties count against it), and its top answers in order."""

    query: str
    video: str
    rank: int
    top: Sequence[Found]


def retrieval_html(
    metrics: Mapping[str, Any],
    *,
    pictures: Sequence[Picture],
    hits: Mapping[str, Sequence[Hit]],
    environment: str,
    training_picture: Picture | None,
) -> str:
    """The page of one run.

    pictures: "recall_<split>" and "ranks_<split>".  hits: of "worst" and "best".  environment: the block to paste.
    """
    found = metrics.get("training")
    return render(
        "retrieval.html",
        metrics=metrics,
        untrained=verdicts.UNTRAINED if metrics["untrained"] else "",
        sections=[_section(split, metrics, pictures) for split in metrics["splits"]],
        published=retrieval_tables.published_table(metrics),
        sources=retrieval_tables.sources(metrics),
        groups=[(_HEADINGS[key], [_answers(hit) for hit in own]) for key, own in hits.items() if own],
        training=training_parts(found, training_picture),
        choice=retrieval_tables.choice_words(metrics) if found else None,
        epochs=retrieval_tables.last_and_best(found) if found else None,
        environment=environment,
    )


def retrieval_markdown(
    metrics: Mapping[str, Any], *, pictures: Sequence[str], hits: Mapping[str, Sequence[Hit]], environment: str
) -> str:
    """The short form as Markdown; pictures: paths relative to the run folder, the rest as for the page."""
    protocol = {name: str(value) for name, value in metrics["protocol"].items()}
    parts = [f"# {markdown.plain(metrics['title'])}", markdown.listed(protocol)]
    if metrics["untrained"]:
        parts.append(f"**{verdicts.UNTRAINED}**")
    for split, result in metrics["splits"].items():
        parts += _split_parts(split, result, protocol.get("v2t", ""))
    if metrics["skipped"]:
        parts.append(markdown.left_out(metrics["skipped"]))
    if table := retrieval_tables.published_table(metrics):
        parts += ["## Published, not ours", markdown.of_table(table)]
        parts.append("\n".join(f"- {markdown.plain(line)}" for line in retrieval_tables.sources(metrics)))
    if metrics.get("training"):
        parts += _training_parts(metrics)
    for key, own in hits.items():
        if own:
            parts += [f"## {_HEADINGS[key]}", "\n".join(_hit_line(hit) for hit in own)]
    parts += [markdown.image(path) for path in pictures]
    parts += ["## Environment", f"```\n{environment}\n```"]
    return "\n\n".join(parts) + "\n"


def _section(split: str, metrics: Mapping[str, Any], pictures: Sequence[Picture]) -> dict[str, Any]:
    """What the template shows of one split."""
    result = metrics["splits"][split]
    names = {f"{kind}_{split}" for kind in ("recall", "ranks")}
    return {
        "name": split,
        "size": retrieval_tables.size(result),
        "partial": retrieval_tables.partial_words(result),
        "words": retrieval_tables.of_100_texts(result),
        "headline": retrieval_tables.headline(result, str(metrics["protocol"].get("v2t", ""))),
        "two_stage": retrieval_tables.two_stage_words(result),
        "pictures": [embed(picture) for picture in pictures if picture.name in names],
    }


def _answers(hit: Hit) -> dict[str, Any]:
    """What the template shows of one query."""
    known = [_card(place, one, hit) for place, one in enumerate(hit.top, 1)]
    return {"query": hit.query, "words": _own_words(hit), "cards": known}


def _card(place: int, one: Found, hit: Hit) -> Card:
    # The own video's place in the list may be better than its rank, in which ties count against it.
    score = f"score {one.score:.4g}"
    words = (f"own video, rank {hit.rank}", score) if one.is_own else (f"{place}. {score}",)
    return cards.card(one.thumbnail, one.video, *words, is_marked=one.is_own)


def _own_words(hit: Hit) -> str:
    words = f"Its own video, {hit.video}, has rank {hit.rank}"
    return f"{words}." if any(one.is_own for one in hit.top) else f"{words} and is not among these."


def _hit_line(hit: Hit) -> str:
    first = f"; first is {hit.top[0].video}" if hit.top and not hit.top[0].is_own else ""
    return f"- “{markdown.plain(hit.query)}”: {markdown.plain(f'{hit.video} has rank {hit.rank}{first}')}"


def _split_parts(split: str, result: Mapping[str, Any], v2t: str) -> list[str]:
    parts = [f"## {markdown.plain(split)}: {retrieval_tables.size(result)}"]
    partial, two_stage = retrieval_tables.partial_words(result), retrieval_tables.two_stage_words(result)
    parts += [f"**{partial}**"] * bool(partial)
    parts += [retrieval_tables.of_100_texts(result), markdown.of_table(retrieval_tables.headline(result, v2t))]
    return parts + [two_stage] * bool(two_stage)


def _training_parts(metrics: Mapping[str, Any]) -> list[str]:
    found = metrics["training"]
    words, is_warning = retrieval_tables.choice_words(metrics)
    parts = ["## Training", markdown.plain(training.in_words(found)), f"**{words}**" if is_warning else words]
    shown = (retrieval_tables.last_and_best(found), training.validations(found))
    parts += [markdown.of_table(table) for table in shown if table]
    return [*parts, markdown.listed(training.facts(found))]
