"""The pictures of a run: from answers and truth to arrays that the reporting room draws."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xclip_module.evaluation.frames import labels_at, precision_recall_points, roc_points
from xclip_module.evaluation.segments import THRESHOLDS, BoundaryError, boundary_errors, clean
from xclip_module.interface import Answer, Corpus, Pair
from xclip_module.reporting import plots
from xclip_module.reporting.chart import Chart, chart_of, csv_text
from xclip_module.reporting.figures import query_colours
from xclip_module.reporting.page import Pictures
from xclip_module.reporting.plots import Line, Panel
from xclip_module.reporting.probe_pictures import probe_pictures
from xclip_module.reporting.ribbon import Ribbon, ribbon_csv, ribbon_figure
from xclip_module.reporting.tables import has_truth, number
from xclip_module.reporting.training_picture import training_picture

_CONTROLS = ("time prior", "random")


def draw(metrics: Mapping[str, Any], answers: Sequence[Answer], corpus: Corpus) -> Pictures:
    """All pictures of a run under its track; answers: of every video, as metrics were made from."""
    known = {split: result for split, result in metrics["splits"].items() if has_truth(result)}
    of_split = {split: [one for one in answers if one.video in set(result["ids"])] for split, result in known.items()}
    overview = [*_map_pictures(known), *_boundary_pictures(of_split, corpus)]
    rows = {split: result["queries"] for split, result in known.items()}
    splits = {split: list(_curve_pictures(split, own, corpus, rows[split])) for split, own in of_split.items()}
    ribbons = {one.video: _ribbon_picture(one, corpus) for one in answers}
    return Pictures(overview, splits, ribbons, training_picture(metrics), probe_pictures(metrics))


def ribbon_of(one: Answer, corpus: Corpus) -> Ribbon:
    """What is drawn of one video: phases by the largest ranking score, and the curves that rank its samples."""
    truth = corpus.moments.get(one.video, {})
    kinds = [query.kind for query in corpus.queries]
    rows = np.flatnonzero([kind == "phase" for kind in kinds])
    true_phase = predicted = None
    if len(rows) > 1:
        predicted = rows[one.ranking[rows].argmax(axis=0)]
        labels = np.stack([labels_at(one.times, truth.get(corpus.queries[row].name, ())) for row in rows])
        if labels.any():
            true_phase = np.where(labels.any(axis=0), rows[labels.argmax(axis=0)], -1)
    return Ribbon(
        video=one.video,
        times=one.times,
        duration=one.duration,
        scores=one.ranking,
        names=[query.name for query in corpus.queries],
        kinds=kinds,
        truth=[truth.get(query.name) for query in corpus.queries],
        moments=[one.moments[query.name] for query in corpus.queries],
        true_phase=true_phase,
        predicted=predicted,
    )


def _ribbon_picture(one: Answer, corpus: Corpus) -> Chart:
    ribbon = ribbon_of(one, corpus)
    shown = "truth, prediction, " if ribbon.true_phase is not None else ""
    title = f"{one.video}: {shown}score of each query over time, each strip in its own range"
    return chart_of(f"ribbon_{one.video}", title, ribbon_figure(ribbon), ribbon_csv(ribbon))


def _curve_pictures(split: str, answers: Sequence[Answer], corpus: Corpus, rows: Mapping[str, Any]) -> Iterator[Chart]:
    """PR and ROC of every query over the samples of all videos of a split."""
    for kind, is_pr in (("PR", True), ("ROC", False)):
        every = [_panel(row, answers, corpus, rows, is_pr=is_pr) for row in range(len(corpus.queries))]
        panels = [panel for panel in every if panel]
        if not panels:
            continue
        labels = ("recall", "precision") if is_pr else ("false positive rate", "true positive rate")
        title = f"{kind} per query, {split}: samples of {len(answers)} videos in one list, chance dashed"
        figure = plots.curve_grid(panels, labels=labels, title=title, is_steps=is_pr)
        points = ([one.name, *point] for one in panels for point in zip(one.x.tolist(), one.y.tolist(), strict=True))
        notes = ([one.name, one.note, *one.chance] for one in panels)
        heads = (["query", *labels], ["query", "title", "chance from", "chance to"])
        numbers = {"": csv_text(heads[0], points), ".chance": csv_text(heads[1], notes)}
        yield chart_of(f"{kind.lower()}_{split}", title, figure, numbers)


def _panel(row: int, answers: Sequence[Answer], corpus: Corpus, rows: Mapping, *, is_pr: bool) -> Panel | None:
    """One query's curve, or None where it is undefined."""
    name, points_of = corpus.queries[row].name, precision_recall_points if is_pr else roc_points
    own = [one for one in answers if name in corpus.moments.get(one.video, {})]
    labels = [labels_at(one.times, corpus.moments[one.video][name]) for one in own]
    points = points_of([one.ranking[row] for one in own], labels) if own else None
    if points is None:
        return None
    prevalence = rows[name]["prevalence_pooled"]
    # The last point of scikit-learn's PR curve, (0, 1), is none that scores reach; the step before it ends there.
    y = np.append(points.y[:-1], points.y[-2]) if is_pr else points.y
    keep = plots.thinned(points.x, y)
    chance = (prevalence, prevalence) if is_pr else (0.0, 1.0)
    value = rows[name]["AUPRC_pooled" if is_pr else "AUROC_pooled"]
    note = f"pooled {'AP' if is_pr else 'AUROC'} {number(value)} % (chance {number(prevalence) if is_pr else 50})"
    colour = query_colours([query.kind for query in corpus.queries])[row]
    return Panel(f"{row + 1} {name}", note, points.x[keep], y[keep], chance, colour)


def _map_pictures(splits: Mapping[str, Any]) -> Iterator[Chart]:
    panels = {f"{split}, {result['videos']} videos": _lines(result) for split, result in splits.items()}
    if not panels:
        return
    title = "det_mAP against tIoU per track (band: 95 % interval) and of controls (dashed)"
    rows = [
        [panel, line.name, limit, *(None if part is None else part[place] for part in line[1:])]
        for panel, lines in panels.items()
        for line in lines
        for place, limit in enumerate(THRESHOLDS)
    ]
    table = csv_text(["split", "track or control", "tIoU", "det_mAP", "low", "high"], rows)
    yield chart_of("map_tiou", title, plots.map_figure(panels, THRESHOLDS, title=title), {"": table})


def _lines(result: Mapping[str, Any]) -> list[Line]:
    keys = [f"det_mAP@{limit:g}" for limit in THRESHOLDS]
    lines = []
    for name, track in result["tracks"].items():
        bounds = [track["intervals"].get(key) or (np.nan, np.nan) for key in keys]
        lines.append(Line(name, _floats(track["macro"], keys), *(list(edge) for edge in zip(*bounds, strict=True))))
    known = [name for name in _CONTROLS if name in result["controls"]]
    return lines + [Line(name, _floats(result["controls"][name], keys)) for name in known]


def _floats(macro: Mapping[str, Any], keys: Sequence[str]) -> list[float]:
    return [np.nan if macro[key] is None else macro[key] for key in keys]


def _boundary_pictures(of_split: Mapping[str, Sequence[Answer]], corpus: Corpus) -> Iterator[Chart]:
    pairs = {split: list(_pairs(own, corpus)) for split, own in of_split.items()}
    errors = {split: boundary_errors(judged) for split, judged in pairs.items()}
    if not any(errors.values()):
        return
    totals = {split: sum(bool(pair.truth) for pair in own) for split, own in pairs.items()}
    title = "Boundary errors of first answers that overlap the truth (dashed: median; outermost bars: and beyond)"
    panels = {
        split: np.array([(error.start, error.end) for error in measured], float).reshape(-1, 2)
        for split, measured in errors.items()
    }
    table = csv_text(
        ["split", *BoundaryError._fields], ([split, *error] for split, measured in errors.items() for error in measured)
    )
    counts = csv_text(
        ["split", "answers", "pairs"], ([split, len(measured), totals[split]] for split, measured in errors.items())
    )
    numbers = {"": table, ".counts": counts}
    yield chart_of("boundary_errors", title, plots.boundary_figure(panels, totals, title=title), numbers)


def _pairs(answers: Sequence[Answer], corpus: Corpus) -> Iterator[Pair]:
    for one in answers:
        truth = corpus.moments.get(one.video, {})
        for name in (query.name for query in corpus.queries if query.name in truth):
            segments = clean(truth[name], unique=True).kept
            yield Pair(name, one.video, tuple(segments), tuple(clean(one.moments[name], unique=False).kept))
