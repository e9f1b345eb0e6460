"""The report of a run: `report.html`, one file that needs nothing beside it, and `report.md`, its short form."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from xclip_module.reporting import few_shot, probe_facts, split_gap, tables, training_facts, verdicts
from xclip_module.reporting.chart import Chart, clock
from xclip_module.reporting.template import TEMPLATES, Card, card, embed, render

# (video, start, end, score) by query text, best first.
BestMoments = Mapping[str, Sequence[tuple[str, float, float, float]]]

# Cards of one sentence: more of them nobody looks at, and each brings its picture into the page.
MOST_CARDS = 24
# Pictures of how the weights came to be stand before the results.
_OF_WEIGHTS = {f"pictures/{name}.svg" for name in (training_facts.PICTURE, *probe_facts.PICTURES)}
_COLUMNS = ("AUROC", "AUPRC", "prevalence", "lift", "mAP@0.5", "R1@0.5", "mIoU")


class RankedVideo(NamedTuple):
    """A video with its best moment for a sentence, in seconds; thumbnail: a JPEG file of it, empty = none."""

    video: str
    score: float
    start: float
    end: float
    thumbnail: bytes = b""


class Pictures(NamedTuple):
    """The charts of a run; overview: of all splits together.  splits: split -> its charts.  ribbons: video -> chart.

    training: of a fine-tuned run that logged a step, else None.  probe: of a linear probe.
    """

    overview: Sequence[Chart]
    splits: Mapping[str, Sequence[Chart]]
    ribbons: Mapping[str, Chart]
    training: Chart | None = None
    probe: Sequence[Chart] = ()


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
    targets = {video: f"video-{number}" for number, video in enumerate(pictures.ribbons)}
    measured = {name: result for name, result in metrics["splits"].items() if tables.has_truth(result)}
    sections = [_section(name, result, metrics, texts, pictures, targets) for name, result in measured.items()]
    blind = [name for name in metrics["splits"] if name not in measured]
    return render(
        TEMPLATES / "report.html",
        metrics=metrics,
        sections=sections,
        gaps=split_gap.gap_table(metrics, replicates),
        gap_words=split_gap.gap_words(metrics, replicates),
        trained_gap=split_gap.trained_gap_table(metrics, replicates),
        training=training_parts(metrics.get("training"), pictures.training),
        probe=probe_parts(metrics, pictures.probe),
        overview=[embed(chart) for chart in pictures.overview],
        blind=blind,
        skipped={} if sections else metrics["skipped"],
        ribbons=[] if sections else [(video, embed(chart)) for video, chart in pictures.ribbons.items()],
        best=best,
        ranked=[(query, *_ranked(rows)) for query, rows in ranked.items()],
        environment=environment,
        untrained=verdicts.UNTRAINED if metrics["untrained"] else "",
    )


def markdown_report(metrics: Mapping[str, Any], *, answers: str, environment: str, pictures: Sequence[str]) -> str:
    """The report of one run as Markdown.

    metrics: as in metrics.json.  answers: the best moments where there is no truth.  environment: the block to paste.
    pictures: paths relative to the run folder.
    """
    training = metrics.get("training")
    gap = split_gap.trained_gap(metrics)
    text = render(
        TEMPLATES / "report.md",
        metrics=metrics,
        untrained=verdicts.UNTRAINED if metrics["untrained"] else "",
        gap=gap,
        gap_columns=list(gap["val"]) if gap else [],
        training=training_parts(training),
        checks=_checks(training) if training else [],
        monitored=[column.key for column in training_facts.METRICS],
        probe=probe_parts(metrics),
        splits=[(name, result, verdicts.against_time_prior(result)) for name, result in metrics["splits"].items()],
        columns=list(_COLUMNS),
        answers=answers,
        pictures_of_weights=[path for path in pictures if path in _OF_WEIGHTS],
        pictures=[path for path in pictures if path not in _OF_WEIGHTS],
        environment=environment,
    )
    return f"{text}\n"


def best_moments(best: BestMoments) -> str:
    """Per query its best moments as lines `video  mm:ss – mm:ss  score`."""
    lines = []
    for query, rows in best.items():
        lines.append(f"“{query}”")
        lines += [f"  {video}  {clock(start)} – {clock(end)}  score {score:.2f}" for video, start, end, score in rows]
        if not rows:
            lines.append("  no moment stands out: the score is the same everywhere")
    return "\n".join(lines)


def training_parts(training: Mapping[str, Any] | None, chart: Chart | None = None) -> dict[str, Any] | None:
    """What the templates show of a fine-tuned run's training; None for other runs."""
    if not training:
        return None
    return {
        "words": training_facts.in_words(training),
        "is_in_vain": training_facts.kept_step(training) == 0,
        "chose": split_gap.what_val_chose(training),
        "facts": training_facts.facts(training),
        "picture": embed(chart) if chart else None,
        "validations": training_facts.validations(training),
    }


def probe_parts(metrics: Mapping[str, Any], charts: Sequence[Chart] = ()) -> dict[str, Any] | None:
    """What the templates show of a linear probe; None for other runs."""
    probe = metrics.get("probe")
    if not probe:
        return None
    shown = (few_shot.few_shot_table(metrics), probe_facts.sweep_table(probe), probe_facts.class_table(probe))
    return {
        "words": probe_facts.in_words(probe),
        "cautions": probe_facts.cautions(probe),
        "facts": probe_facts.facts(probe),
        "pictures": [embed(chart) for chart in charts],
        "tables": [table for table in shown if table],
    }


def _ranked(rows: Sequence[RankedVideo]) -> tuple[str, list[Card]]:
    """What to say of those that are not shown, and a card for each of the others."""
    words = f"The first {MOST_CARDS} of {len(rows)} videos." if len(rows) > MOST_CARDS else ""
    shown = [
        card(row.thumbnail, row.video, f"{rank}. score {row.score:.2f}", f"{clock(row.start)} – {clock(row.end)}")
        for rank, row in enumerate(rows[:MOST_CARDS], 1)
    ]
    return words, shown


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
        "pictures": [embed(chart) for chart in pictures.splits.get(name, ())],
        "ribbons": [(video, targets[video], embed(pictures.ribbons[video])) for video in order],
    }


def _checks(training: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The validations to show, each with its step and what is special about it."""
    kept = training_facts.kept_step(training)
    rows = training_facts.chosen_rows(training["validations"], kept)
    return [(f"{row['step']} {training_facts.note_of(row['step'], kept)}".strip(), row) for row in rows]
