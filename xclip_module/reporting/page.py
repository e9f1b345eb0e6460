"""`report.html`: one file that needs nothing beside it."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from xclip_module.reporting import cards, gap, tables, training, verdicts
from xclip_module.reporting import probing as probing
from xclip_module.reporting.cards import Card
from xclip_module.reporting.picture import Picture, clock

# (video, start, end, score) by query text, best first.
BestMoments = Mapping[str, Sequence[tuple[str, float, float, float]]]


# Cards of one sentence: more of them nobody looks at, and each brings its picture into the page.
MOST_CARDS = 24


class RankedVideo(NamedTuple):
    """A video with its best moment for a sentence, in seconds; thumbnail: a JPEG file of it, empty = none."""

    video: str
    score: float
    start: float
    end: float
    thumbnail: bytes = b""


class Pictures(NamedTuple):
    """overview: of all splits together.  splits: split -> its pictures.  ribbons: video -> picture.

    training: of a fine-tuned run that logged a step, else None.  probe: of a linear probe.
    """

    overview: Sequence[Picture]
    splits: Mapping[str, Sequence[Picture]]
    ribbons: Mapping[str, Picture]
    training: Picture | None = None
    probe: Sequence[Picture] = ()


def html_report(
    metrics: Mapping[str, Any],
    *,
    texts: Mapping[str, str],
    pictures: Pictures,
    best: BestMoments,
    environment: str,
    replicates: Mapping[str, np.ndarray],
    ranked: Mapping[str, Sequence[RankedVideo]] = {},
) -> str:
    """The page of one run.

    metrics: as in metrics.json.  texts: query name -> sentence.  best: to be shown where nothing is known to be true.
    environment: the block to paste.  replicates: "<split>/<track>/<metric>" -> [B], for the gap between splits.
    ranked: sentence -> the recordings, best first, of a search over several.
    """
    targets = {video: f"video-{place}" for place, video in enumerate(pictures.ribbons)}
    known = {name: result for name, result in metrics["splits"].items() if tables.has_truth(result)}
    sections = [_section(name, result, metrics, texts, pictures, targets) for name, result in known.items()]
    blind = [name for name in metrics["splits"] if name not in known]
    return render(
        "report.html",
        metrics=metrics,
        sections=sections,
        gaps=gap.gap_table(metrics, replicates),
        gap_words=gap.gap_words(metrics, replicates),
        trained_gap=gap.trained_gap_table(metrics, replicates),
        training=training_parts(metrics.get("training"), pictures.training),
        probe=_probe(metrics, pictures.probe),
        overview=[embed(picture) for picture in pictures.overview],
        blind=blind,
        skipped={} if sections else metrics["skipped"],
        ribbons=[] if sections else [(video, embed(one)) for video, one in pictures.ribbons.items()],
        best=best,
        ranked=[(query, *_ranked(rows)) for query, rows in ranked.items()],
        environment=environment,
        untrained=verdicts.UNTRAINED if metrics["untrained"] else "",
    )


def render(template: str, **values: Any) -> str:
    """A template of this folder as text; everything put into it is escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
    known = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    known.filters["clock"] = clock
    return known.get_template(template).render(**values)


def embed(picture: Picture) -> dict[str, Any]:
    """What the page needs of a picture: a data address and the files beside the page that hold its numbers.

    As an <img>, not inline: ids of several drawings would clash, and a browser runs nothing inside an image.
    """
    data = base64.b64encode(picture.svg).decode()
    return {"src": f"data:image/svg+xml;base64,{data}", "title": picture.title, "files": list(picture.csv)}


def training_parts(found: Mapping[str, Any] | None, picture: Picture | None) -> dict[str, Any] | None:
    """What the template shows of a fine-tuned run's training; None for other runs."""
    if not found:
        return None
    return {
        "words": training.in_words(found),
        "is_in_vain": training.kept_step(found) == 0,
        "chose": gap.what_val_chose(found),
        "facts": training.facts(found),
        "picture": embed(picture) if picture else None,
        "validations": training.validations(found),
    }


def _ranked(rows: Sequence[RankedVideo]) -> tuple[str, list[Card]]:
    """What to say of those that are not shown, and a card for each of the others."""
    words = []
    if len(rows) > MOST_CARDS:
        words.append(f"The first {MOST_CARDS} of {len(rows)} videos.")
    shown = [
        cards.card(
            one.thumbnail,
            one.video,
            f"{place}. score {one.score:.2f}",
            f"{clock(one.start)} – {clock(one.end)}",
        )
        for place, one in enumerate(rows[:MOST_CARDS], 1)
    ]
    return " ".join(words), shown


def _probe(metrics: Mapping[str, Any], pictures: Sequence[Picture]) -> dict[str, Any] | None:
    """What the template shows of a linear probe; None for other runs."""
    found = metrics.get("probe")
    if not found:
        return None
    return {
        "words": probing.in_words(found),
        "cautions": probing.cautions(found),
        "facts": probing.facts(found),
        "pictures": [embed(picture) for picture in pictures],
        "tables": [
            table
            for table in (probing.few_shot_table(metrics), probing.sweep_table(found), probing.class_table(found))
            if table
        ],
    }


def _section(
    name: str,
    result: Mapping[str, Any],
    metrics: Mapping[str, Any],
    texts: Mapping[str, str],
    pictures: Pictures,
    targets: Mapping[str, str],
) -> dict[str, Any]:
    """What the template shows of one split."""
    order = [video for video in tables.worst_first(result) if video in pictures.ribbons]
    return {
        "name": name,
        "result": result,
        "searches": verdicts.of_100_searches(result),
        "prior": verdicts.against_time_prior(result),
        "headline": tables.headline(result, metrics["track"]),
        "small": [tables.diagnostics(result), *tables.phases_and_tools(result)],
        "prompt_sets": tables.prompt_sets(result),
        "queries": tables.queries(result, texts),
        "videos": tables.videos(result, targets),
        "pictures": [embed(picture) for picture in pictures.splits.get(name, ())],
        "ribbons": [(video, targets[video], embed(pictures.ribbons[video])) for video in order],
    }
