"""`report.md` of one run: the short form of its page, and what the terminal shows of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from xclip_module.reporting import probe_facts, training_facts, verdicts
from xclip_module.reporting.chart import clock
from xclip_module.reporting.page import BestMoments, probe_parts, training_parts
from xclip_module.reporting.split_gap import trained_gap
from xclip_module.reporting.template import TEMPLATES, render

# Pictures of how the weights came to be stand before the results.
_OF_WEIGHTS = {f"pictures/{name}.svg" for name in (training_facts.PICTURE, *probe_facts.PICTURES)}
_COLUMNS = ("AUROC", "AUPRC", "prevalence", "lift", "mAP@0.5", "R1@0.5", "mIoU")


def markdown_report(metrics: Mapping[str, Any], *, answers: str, environment: str, pictures: Sequence[str]) -> str:
    """The report of one run as Markdown.

    metrics: as in metrics.json.  answers: the best moments where there is no truth.  environment: the block to paste.
    pictures: paths relative to the run folder.
    """
    training = metrics.get("training")
    gap = trained_gap(metrics)
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


def _checks(training: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The validations to show, each with its step and what is special about it."""
    kept = training_facts.kept_step(training)
    rows = training_facts.chosen_rows(training["validations"], kept)
    return [(f"{row['step']} {training_facts.note_of(row['step'], kept)}".strip(), row) for row in rows]
