"""Linear heads of every kind of query: standardised features, the penalty swept on val, the fits stored; and the
same with few training videos.

N windows of all training videos, D width, Q queries, M windows of a video.
"""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xclip_module.config import ProbeConfig
from xclip_module.evaluation.frames import rank_pair, sample_ap
from xclip_module.features.store import FeatureStore
from xclip_module.interface import Curve, Query
from xclip_module.models.head import Head, log_odds
from xclip_module.moments.tracks import SIMILARITY
from xclip_module.probe.corpus import TRAIN, VAL, check_shots, no_choice
from xclip_module.probe.windows import ProbeData, Windows, digest_of, rows_of, stacked
from xclip_module.run.progress import Progress
from xclip_module.tasks.localisation.judge import Judge
from xclip_module.training.linear import Linear, Problem, fit, is_at_an_end, make_problem, sweep

# Below this share of a feature's size its deviation is rounding: the feature is constant.
_LEAST_DEVIATION = 1e-5
_FORMS = {"phase": "softmax over {} phases", "tool": "{} one-vs-rest sigmoids", "free": "{} sigmoids, one a sentence"}
# What is kept of each draw and split.
NUMBERS = ("AUROC", "AUPRC", "prevalence", "mAP@0.5")
# A penalty of the middle, and how many the sweep tries.
_TRIAL_PENALTY, _PENALTIES = 1.0, 15

log = logging.getLogger(__name__)


class Scale(NamedTuple):
    """Mean and inverse deviation [D] of the training windows; inverse 0 = constant."""

    mean: Tensor
    inverse: Tensor


class Fitted(NamedTuple):
    """The linear part of a head for all queries, and per kind of query what the report says of it."""

    scale: Scale
    weight: Tensor
    bias: Tensor
    known: Tensor
    kinds: list[dict[str, Any]]

    @property
    def penalties(self) -> dict[str, float]:
        """Kind of query -> penalty."""
        return {facts["kind"]: facts["lambda"] for facts in self.kinds}


class Fitter(NamedTuple):
    """What all fits of a run share. store: of fits, so that a run that was cut makes none twice."""

    section: ProbeConfig
    queries: tuple[Query, ...]
    store: FeatureStore

    def fit(
        self,
        train: Sequence[Windows],
        val: Sequence[Windows],
        *,
        more: Sequence[Windows] = (),
        otherwise: Mapping[str, float | None] | None = None,
    ) -> Fitted:
        """Heads of all kinds, fitted to `train` with penalties chosen on `val`, then with these to `train` and `more`.

        otherwise: kind of query -> penalty where there is nothing to choose one on, of which nothing is logged; without
        it, that raises ConfigError. A query that `train` does not know stays unknown.
        """
        features, labels, known = stacked(train)
        scale = standardise(features)
        size = len(self.queries), features.shape[1]
        weight, bias = torch.zeros(size, device=features.device), torch.zeros(size[0], device=features.device)
        is_known = torch.zeros(size[0], dtype=torch.bool, device=features.device)
        inputs = (features - scale.mean) * scale.inverse
        kinds = []
        for kind in dict.fromkeys(query.kind for query in self.queries):
            group = _Group(self, kind, scale, train, val, (otherwise or {}).get(kind), is_quiet=otherwise is not None)
            rows = learnable(labels, known, rows_of(self.queries, kind), is_exclusive=kind == "phase")
            if rows:
                chosen = group.choose(inputs, labels[:, rows], known[:, rows], rows, self.section.penalty)
                weight[rows], bias[rows] = chosen.weight, chosen.bias
            is_known[rows] = True
            kinds.append(group.described(labels, rows))
        fitted = Fitted(scale, weight, bias, is_known, kinds)
        return self._again(fitted, [*train, *more]) if more else fitted

    def _again(self, fitted: Fitted, videos: Sequence[Windows]) -> Fitted:
        """The same penalties on more videos."""
        features, labels, known = stacked(videos)
        scale = standardise(features)
        inputs = (features - scale.mean) * scale.inverse
        weight, bias, is_known = fitted.weight.clone(), fitted.bias.clone(), fitted.known.clone()
        for kind, penalty in fitted.penalties.items():
            known_before = [row for row in rows_of(self.queries, kind) if fitted.known[row]]
            rows = learnable(labels, known, known_before, is_exclusive=kind == "phase")
            if rows and penalty:
                problem = self.problem(inputs, labels[:, rows], known[:, rows], kind)
                refitted = fit(problem, penalty, max_steps=self.section.max_steps)
                weight[rows], bias[rows], is_known[rows] = refitted.weight, refitted.bias, True
        return Fitted(scale, weight, bias, is_known, fitted.kinds)

    def problem(self, inputs: Tensor, labels: Tensor, known: Tensor, kind: str) -> Problem:
        """Of one kind of query."""
        return make_problem(inputs, labels, known, is_exclusive=kind == "phase", is_balanced=self.section.balance)


@dataclass
class _Group:
    """The sweep of one kind of query, which fills `rows` and `penalty`."""

    fitter: Fitter
    kind: str
    scale: Scale
    train: Sequence[Windows]
    val: Sequence[Windows]
    otherwise: float | None
    is_quiet: bool
    rows: list[dict[str, Any]] = field(default_factory=list)
    penalty: float | None = None

    def choose(self, inputs: Tensor, labels: Tensor, known: Tensor, rows: list[int], penalty: float) -> Linear:
        """The fit with the given penalty, or with the one that is best on val."""
        problem = self.fitter.problem(inputs, labels, known, self.kind)
        section = self.fitter.section
        fits: dict[float, Linear] = {}

        def ask(penalty: float) -> float:
            start = fits[min(fits, key=lambda other: abs(np.log(other / penalty)))] if fits else None
            fits[penalty], row = self._fit(problem, penalty, start, rows)
            self.rows.append(row)
            if not self.is_quiet:
                numbers = ", ".join(f"{name} {row[name]:.4f}" for name in ("train", "val") if row[name] is not None)
                shown = f"{section.monitor} {numbers} ({row['steps']} steps)"
                log.info("%s, penalty %.3g: %s", self.kind, penalty, shown)
            return -np.inf if row["val"] is None else row["val"]

        if not penalty and not self._can_choose(rows):
            penalty = self.otherwise or 0.0
            if not penalty:
                raise no_choice(self.kind, section.monitor, has_val=bool(self.val))
        if penalty:
            ask(penalty)
        else:
            penalty = sweep(ask)
        self.penalty = penalty
        if not self.is_quiet and not section.penalty and is_at_an_end(penalty):
            log.warning("%s: the best penalty, %g, is at the end of the range", self.kind, penalty)
        return fits[penalty]

    def _can_choose(self, rows: list[int]) -> bool:
        """Whether val has a pair of which the number that chooses is defined."""
        held = [video.labels[:, row] for video in self.val for row in rows]
        is_auroc = self.fitter.section.monitor == "AUROC"
        return any(bool(label.any()) and not (is_auroc and bool(label.all())) for label in held)

    def _fit(
        self, problem: Problem, penalty: float, start: Linear | None, rows: list[int]
    ) -> tuple[Linear, dict[str, Any]]:
        """A fit and its numbers, from the store where a former start made it."""
        section, device = self.fitter.section, problem.features.device
        key = {
            "video": self.kind,
            "rows": rows,
            "train": digest_of(self.train),
            "val": digest_of(self.val),
            "penalty": penalty,
            "start": 0.0 if start is None else start.objective,
            "settings": [section.monitor, section.balance, section.max_steps, device.type, self.is_quiet],
        }
        stored = self.fitter.store.load(key)
        if stored is None:
            linear = fit(problem, penalty, start=start, max_steps=section.max_steps)
            val = self._number(linear, rows, self.val)
            train = np.nan if self.is_quiet else self._number(linear, rows, self.train)
            stored = {
                "weight": linear.weight.cpu().numpy(),
                "bias": linear.bias.cpu().numpy(),
                "facts": np.array([linear.steps, linear.objective, val, train]),
            }
            self.fitter.store.save(key, stored)
        steps, objective, val, train = stored["facts"].tolist()
        weight, bias = (torch.from_numpy(stored[name]).to(device) for name in ("weight", "bias"))
        numbers = {name: None if np.isnan(value) else value for name, value in (("train", train), ("val", val))}
        row = {"lambda": penalty, **numbers, "steps": int(steps)}
        return Linear(weight, bias, int(steps), objective), row

    def _number(self, linear: Linear, rows: list[int], videos: Sequence[Windows]) -> float:
        """The monitored number, NaN where it is undefined."""
        kinds, known = [self.kind] * len(rows), torch.ones(len(rows), dtype=torch.bool, device=linear.bias.device)
        curves = []
        for video in videos:
            inputs = (video.features - self.scale.mean) * self.scale.inverse
            curves.append(log_odds(linear.weight @ inputs.T + linear.bias[:, None], kinds, known))
        number = mean_over_pairs(curves, videos, rows, self.fitter.section.monitor)
        return np.nan if number is None else number

    def described(self, labels: Tensor, rows: list[int]) -> dict[str, Any]:
        """What the report says; `labels` [N, Q] of all training windows."""
        classes = [
            {
                "name": self.fitter.queries[row].name,
                "windows": int(labels[:, row].sum()),
                "videos": sum(bool(video.labels[:, row].any()) for video in self.train),
                "known": row in rows,
            }
            for row in rows_of(self.fitter.queries, self.kind)
        ]
        return {
            "kind": self.kind,
            "form": _FORMS[self.kind].format(len(rows)),
            "lambda": self.penalty,
            "best": next((row["val"] for row in self.rows if row["lambda"] == self.penalty), None),
            "sweep": self.rows,
            "classes": classes,
        }


def standardise(features: Tensor) -> Scale:
    """Of windows [N, D]; a feature that is constant is left out."""
    mean = features.double().mean(dim=0)
    # In blocks: a second copy of all windows in float64 would be the largest thing in memory.
    square = sum((part.double() - mean).square().sum(dim=0) for part in features.split(16384))
    deviation = (square / len(features)).sqrt()
    is_constant = deviation <= _LEAST_DEVIATION * mean.abs().clamp(min=1e-30)
    return Scale(mean.float(), torch.where(is_constant, 0.0, 1 / deviation).float())


def learnable(labels: Tensor, known: Tensor, rows: list[int], *, is_exclusive: bool) -> list[int]:
    """The rows with windows in which they hold and others in which they do not; of phases, at least two."""
    held = (labels[:, rows] & known[:, rows]).sum(dim=0)
    other = (~labels[:, rows] & known[:, rows]).sum(dim=0)
    both = [row for row, yes, no in zip(rows, held.tolist(), other.tolist(), strict=True) if yes and no]
    return [] if is_exclusive and len(both) < 2 else both


def mean_over_pairs(
    curves: Sequence[Tensor], videos: Sequence[Windows], rows: Sequence[int], monitor: str
) -> float | None:
    """AUPRC or AUROC as the report has it: the mean over the pairs of video and query that define it.

    curves: per video scores [len(rows), M].  None where no pair does.
    """
    values = []
    for scores, video in zip(curves, videos, strict=True):
        labels = video.labels.cpu().numpy()
        # A pair that nobody has annotated holds nowhere, and defines neither.
        for curve, row in zip(scores.cpu().numpy(), rows, strict=True):
            if monitor == "AUPRC":
                values.append(sample_ap(curve, labels[:, row]))
            elif ranked := rank_pair(curve, labels[:, row]):
                values.append(ranked.auroc)
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def try_fits(section: ProbeConfig, queries: Sequence[Query], videos: Sequence[Windows]) -> float:
    """Seconds of a whole sweep on these windows, from one fit of each kind of query; for `--check`."""
    start = time.monotonic()
    inputs, labels, known = stacked(videos)
    for kind in dict.fromkeys(query.kind for query in queries):
        is_phase = kind == "phase"
        rows = learnable(labels, known, rows_of(queries, kind), is_exclusive=is_phase)
        if rows:
            wanted, is_balanced = (labels[:, rows], known[:, rows]), section.balance
            fit(make_problem(inputs, *wanted, is_exclusive=is_phase, is_balanced=is_balanced), _TRIAL_PENALTY)
    return (time.monotonic() - start) * (1 if section.penalty else _PENALTIES)


def make_head(fitted: Fitted, queries: Sequence[Query], temporal: Any, source: Any, made: Any) -> Head:
    """A head on the CPU."""
    return Head(
        queries=tuple(queries),
        mean=fitted.scale.mean,
        inverse=fitted.scale.inverse,
        weight=fitted.weight,
        bias=fitted.bias,
        known=fitted.known,
        temporal=temporal,
        source=source,
        made=made,
    ).to(torch.device("cpu"))


def few_shot(
    fitter: Fitter, data: ProbeData, whole: Fitted, *, judging: Judge, splits: Sequence[str], seed: int
) -> dict[str, Any]:
    """Numbers of every draw of `probe.shots` training videos, each with its own penalties from the whole val split.

    whole: the fit to all training videos, whose penalty a draw takes for what it shows and val does not.
    splits: those that are scored.  seed: of which videos are drawn.
    Raises ConfigError for more videos than there are.
    """
    section, train, val = fitter.section, data.of(TRAIN), data.of(VAL)
    check_shots(section, len(train))
    rows = []
    shots = sorted(set(section.shots))
    drawn = [
        (count, draw, chosen)
        for count in shots
        for draw, chosen in enumerate(draw_videos(train, count, seed=seed, draws=section.draws))
    ]
    with Progress(len(drawn), name="few-shot", unit="draws", is_shown=True) as progress:
        for count, draw, chosen in drawn:
            fitted = fitter.fit(chosen, val, otherwise=whole.penalties)
            numbers = {split: _numbers(fitter, fitted, judging, data.of(split)) for split in splits}
            videos = [video.video for video in chosen]
            rows.append({"shots": count, "draw": draw, "videos": videos, "lambda": fitted.penalties, "splits": numbers})
            progress.advance(1, f"{count} of {len(train)} videos")
    return {"shots": shots, "draws": section.draws, "rows": rows}


def draw_videos(train: Sequence[Windows], count: int, *, seed: int, draws: int) -> list[list[Windows]]:
    """Up to `draws` different choices of `count` training videos, each in their order; fewer where there are no more.

    The first ones are the same whatever number is asked for.
    """
    rng = np.random.default_rng((seed, count))
    chosen: dict[tuple[int, ...], list[Windows]] = {}
    while len(chosen) < min(draws, math.comb(len(train), count)):
        numbers = tuple(sorted(rng.choice(len(train), count, replace=False).tolist()))
        chosen.setdefault(numbers, [train[number] for number in numbers])
    return list(chosen.values())


def _numbers(fitter: Fitter, fitted: Fitted, judging: Judge, videos: Sequence[Windows]) -> dict[str, Any]:
    """The macro numbers of the per-window head, similarity-only."""
    head = make_head(fitted, fitter.queries, None, {}, {})
    curves = [
        Curve(video.video, video.times, head.scores(video.features.cpu()).numpy(), video.duration) for video in videos
    ]
    macro = judging.summary(judging.answers(curves, SIMILARITY)).macro
    return {name: macro[name] for name in NUMBERS}
