"""report.md of one run, and the command that makes one page of several runs."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xclip_module.errors import UserError
from xclip_module.reporting import markdown, training
from xclip_module.reporting import probing as probing
from xclip_module.reporting.comparison import write_comparison
from xclip_module.reporting.gap import GAP, trained_gap, what_val_chose
from xclip_module.reporting.picture import clock
from xclip_module.reporting.verdicts import UNTRAINED, against_time_prior

# Pictures of how the weights came to be stand before the results.
_OF_WEIGHTS = {f"pictures/{name}.svg" for name in (training.PICTURE, *probing.PICTURES)}
COLUMNS = ("AUROC", "AUPRC", "prevalence", "lift", "mAP@0.5", "R1@0.5", "mIoU")


def markdown_report(metrics: Mapping[str, Any], *, answers: str, environment: str, pictures: Sequence[str]) -> str:
    """The report of one run as Markdown.

    metrics: as in metrics.json.  answers: the best moments where there is no truth.  environment: the block to paste.
    pictures: paths relative to the run folder.
    """
    parts = [f"# {metrics['title']}", _facts(metrics)]
    if metrics["untrained"]:
        parts.append(f"**{UNTRAINED}**")
    if metrics.get("training"):
        parts += [*_gap(metrics), *_training(metrics["training"])]
    if metrics.get("probe"):
        parts += _probe(metrics["probe"])
    parts += [markdown.image(picture) for picture in pictures if picture in _OF_WEIGHTS]
    for split, result in metrics["splits"].items():
        parts += [f"## {split}: {result['videos']} videos", _table(result), *_remarks(result)]
    if not metrics["splits"] and metrics["skipped"]:
        parts.append(markdown.left_out(metrics["skipped"]))
    if answers:
        parts += ["## Best moments", f"```\n{answers}\n```"]
    parts += [markdown.image(picture) for picture in pictures if picture not in _OF_WEIGHTS]
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


def _gap(metrics: Mapping[str, Any]) -> list[str]:
    """The run's track on val beside test; empty without both splits."""
    values = trained_gap(metrics)
    if not values:
        return []
    names = list(values["val"])
    rows = [
        [f"**{split}**", *(_number(row[name], is_signed=split == GAP) for name in names)]
        for split, row in values.items()
    ]
    return [
        "## Val → test",
        markdown.plain(what_val_chose(metrics["training"])),
        markdown.grid(["split", *names], rows),
    ]


def _training(found: Mapping[str, Any]) -> list[str]:
    parts = ["## Training", markdown.plain(training.in_words(found)), markdown.listed(training.facts(found))]
    kept, checks = training.kept_step(found), found["validations"]
    if checks:
        shown = training.chosen_rows(checks, kept)
        names = [column.key for column in training.METRICS]
        rows = [
            [
                f"{row['step']} {training.note_of(row['step'], kept)}".strip(),
                *(_number(row.get(name)) for name in names),
            ]
            for row in shown
        ]
        parts += [f"{len(shown)} of {len(checks)} validations:", markdown.grid(["step", *names], rows)]
    return parts


def _probe(found: Mapping[str, Any]) -> list[str]:
    words = [markdown.plain(line) for line in probing.in_words(found)]
    cautions = [f"**{markdown.plain(line)}**" for line in probing.cautions(found)]
    return ["## Linear probe", *words, *cautions, markdown.listed(probing.facts(found))]


_WITHOUT = {"oracle": "the truth through the segmenter"}


def _table(result: Mapping[str, Any]) -> str:
    """All queries under every track first, the controls under them, then every query under the run's track."""
    rows = [(f"**all queries, {name}**", track["macro"]) for name, track in result["tracks"].items()]
    rows += [(f"*{name} ({_WITHOUT.get(name, 'no pixels')})*", row) for name, row in result["controls"].items()]
    rows += [(markdown.plain(name), row) for name, row in result["queries"].items()]
    cells = [[name, *(_number(row.get(column)) for column in COLUMNS), str(row.get("pairs", ""))] for name, row in rows]
    return markdown.grid(["query", *COLUMNS, "pairs"], cells)


def _remarks(result: Mapping[str, Any]) -> list[str]:
    remarks = [
        "AUROC, AUPRC and prevalence: means over the (video, query) pairs in which a query holds, for AUROC not all of "
        "the time; chance is 0.5 for AUROC and the prevalence for AUPRC; lift is AUPRC / prevalence. mAP@0.5: "
        "ActivityNet rule, mean over queries."
    ]
    remarks.append("\n".join(f"- {line}" for line in against_time_prior(result)))
    macro = result["macro"]
    remarks.append(
        f"{macro['pairs_with_truth']} pairs hold their query, {macro['pairs_absent']} do not, "
        f"{macro['pairs_absent_with_predictions']} of these have an answer all the same (presence AUROC "
        f"{_number(macro['presence_AUROC_samples'])}, chance 0.5); {macro['tied_share']:.1%} of the moments have tied "
        "scores."
    )
    if result["skipped"]:
        remarks.append(markdown.left_out(result["skipped"]))
    return remarks


def _number(value: float | None, *, is_signed: bool = False) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "−") if is_signed else f"{value:.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes comparison.html and comparison.csv of several run folders; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m xclip_module.reporting.report", description=main.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; the others are compared with the first one")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for both files")
    chosen = parser.parse_args(arguments)
    if len(chosen.runs) < 2:
        parser.error("a comparison takes two run folders or more")
    try:
        page = write_comparison(chosen.runs, chosen.output)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{page}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
