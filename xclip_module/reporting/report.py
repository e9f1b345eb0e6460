"""report.md: what was run, what came out, and what it has to be compared with."""

from collections.abc import Mapping, Sequence
from typing import Any

from xclip_module.reporting.plots import clock

COLUMNS = ("AUROC", "AUPRC", "prevalence", "mAP@0.5")


def markdown_report(metrics: Mapping[str, Any], *, answers: str, environment: str, pictures: Sequence[str]) -> str:
    """The report of one run as Markdown.

    metrics: as in metrics.json.  answers: the best moments where there is no truth.  environment: the block to paste.
    pictures: paths relative to the run folder.
    """
    parts = [f"# {metrics['title']}", _facts(metrics)]
    if metrics["untrained"]:
        parts.append("**The weights are untrained (random): expect chance.**")
    for split, result in metrics["splits"].items():
        parts += [f"## {split}: {result['videos']} videos", _table(result), *_remarks(result)]
    if answers:
        parts += ["## Best moments", f"```\n{answers}\n```"]
    parts += [f"![{picture}]({picture})" for picture in pictures]
    parts += ["## Environment", f"```\n{environment}\n```"]
    return "\n\n".join(parts) + "\n"


def best_moments(found: Mapping[str, Sequence[tuple[str, float, float, float]]]) -> str:
    """Per query its best moments as lines `video  mm:ss – mm:ss  score`.

    found: query -> (video, start, end, score), best first.
    """
    lines = []
    for query, rows in found.items():
        lines.append(f"“{query}”")
        lines += [f"  {video}  {clock(start)} – {clock(end)}  score {score:.2f}" for video, start, end, score in rows]
        if not rows:
            lines.append("  no moment stands out: the score is the same everywhere")
    return "\n".join(lines)


def _facts(metrics: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in metrics["protocol"].items())


def _table(result: Mapping[str, Any]) -> str:
    """Macro first, the controls under it, then every query."""
    rows = [("**all queries**", result["macro"])]
    rows += [(f"*{name} (no pixels)*", control) for name, control in result["controls"].items()]
    rows += list(result["queries"].items())
    lines = ["| query | " + " | ".join(COLUMNS) + " | pairs |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, row in rows:
        cells = [_number(row.get(column)) for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} | {row.get('pairs', '')} |")
    return "\n".join(lines)


def _remarks(result: Mapping[str, Any]) -> list[str]:
    remarks = [
        "AUROC, AUPRC and prevalence: means over the (video, query) pairs in which a query holds part of the time; "
        "chance is 0.5 for AUROC and the prevalence for AUPRC. mAP@0.5: ActivityNet rule, mean over queries."
    ]
    prior = result["controls"].get("time prior")
    macro = result["macro"]
    if prior and macro["AUROC"] is not None and macro["AUROC"] <= prior["AUROC"]:
        remarks.append(
            f"**The model does not beat the time prior** (AUROC {macro['AUROC']:.3f} against {prior['AUROC']:.3f}), "
            "which knows only when things usually happen and sees no picture."
        )
    if result["skipped"]:
        listed = "\n".join(f"- {video}: {reason}" for video, reason in result["skipped"].items())
        remarks.append(f"**{len(result['skipped'])} videos left out:**\n\n{listed}")
    return remarks


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
