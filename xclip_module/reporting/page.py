"""`report.html`: one file that needs nothing beside it."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from xclip_module.reporting import tables, verdicts
from xclip_module.reporting.differences import Difference, independent
from xclip_module.reporting.picture import Picture, clock
from xclip_module.reporting.tables import Cell, Column, Row, Table

# (video, start, end, score) by query text, best first.
BestMoments = Mapping[str, Sequence[tuple[str, float, float, float]]]

_GAP_KEYS = ("AUROC", "AUPRC", "R1@0.5", "mIoU", "det_mAP@0.5", "pair_mAP@0.5")


class Pictures(NamedTuple):
    """overview: of all splits together.  splits: split -> its pictures.  ribbons: video -> picture."""

    overview: Sequence[Picture]
    splits: Mapping[str, Sequence[Picture]]
    ribbons: Mapping[str, Picture]


def html_report(
    metrics: Mapping[str, Any],
    *,
    texts: Mapping[str, str],
    pictures: Pictures,
    best: BestMoments,
    environment: str,
    replicates: Mapping[str, np.ndarray],
) -> str:
    """The page of one run.

    metrics: as in metrics.json.  texts: query name -> sentence.  best: to be shown where nothing is known to be true.
    environment: the block to paste.  replicates: "<split>/<track>/<metric>" -> [B], for the gap between splits.
    """
    targets = {video: f"video-{place}" for place, video in enumerate(pictures.ribbons)}
    known = {name: result for name, result in metrics["splits"].items() if tables.has_truth(result)}
    sections = [_section(name, result, metrics, texts, pictures, targets) for name, result in known.items()]
    blind = [name for name in metrics["splits"] if name not in known]
    return render(
        "report.html",
        metrics=metrics,
        sections=sections,
        gaps=gap_table(metrics, replicates),
        gap_words=_gap_words(metrics, replicates),
        overview=[embed(picture) for picture in pictures.overview],
        blind=blind,
        skipped={} if sections else metrics["skipped"],
        ribbons=[] if sections else [(video, embed(one)) for video, one in pictures.ribbons.items()],
        best=best,
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


def gap_table(metrics: Mapping[str, Any], replicates: Mapping[str, np.ndarray]) -> Table | None:
    """Validation beside test per track: both values and test - validation; None without both splits."""
    if not _has_both(metrics):
        return None
    tracks = list(metrics["splits"]["val"]["tracks"])
    columns = [Column(f"{part} %", track, f"{track}/{part}") for track in tracks for part in ("val", "test", "gap")]
    heads = {column.key: column.head.removesuffix(" %") for column in tables.HEADLINE}
    rows = []
    for key in _GAP_KEYS:
        found = []
        for track in tracks:
            val, test = _both(metrics, track, key)
            gap = split_gap(metrics, replicates, track, key)
            value, _, bounds = verdicts.signed(gap).partition(" ")
            mark = " *" if gap.excludes_zero else ""
            found += [
                Cell(tables.number(val)),
                Cell(tables.number(test)),
                Cell(value + mark, (bounds,) if bounds else ()),
            ]
        rows.append(Row(heads[key], "", found))
    caption = "gap = test − val in percent points with its 95 % interval; * = the interval excludes 0"
    return Table(caption, "metric", columns, rows)


def split_gap(metrics: Mapping[str, Any], replicates: Mapping[str, np.ndarray], track: str, key: str) -> Difference:
    """test - val of one metric of one track."""
    val, test = _both(metrics, track, key)
    empty = np.empty(0)
    draws = (replicates.get(f"val/{track}/{key}", empty), replicates.get(f"test/{track}/{key}", empty))
    return independent(val, test, draws)


def _has_both(metrics: Mapping[str, Any]) -> bool:
    splits = metrics["splits"]
    return all(name in splits and tables.has_truth(splits[name]) for name in ("val", "test"))


def _both(metrics: Mapping[str, Any], track: str, key: str) -> list[float | None]:
    return [metrics["splits"][split]["tracks"][track]["macro"][key] for split in ("val", "test")]


def _gap_words(metrics: Mapping[str, Any], replicates: Mapping[str, np.ndarray]) -> list[str]:
    if not _has_both(metrics):
        return []
    words, track = [], metrics["track"]
    for key in ("AUROC", "det_mAP@0.5"):
        val, test = _both(metrics, track, key)
        words.append(verdicts.of_gap(key, ("val", val), ("test", test), split_gap(metrics, replicates, track, key)))
    return words


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
