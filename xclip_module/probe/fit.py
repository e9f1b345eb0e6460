"""Linear heads of every kind of query: standardised features, the penalty swept on val, the fits stored.

N windows of all training videos, D width, Q queries, M windows of a video.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xclip_module.config import ProbeConfig
from xclip_module.evaluation.frames import rank_pair, sample_ap
from xclip_module.features.store import FeatureStore
from xclip_module.interface import Query
from xclip_module.models.head import Head, log_odds
from xclip_module.probe.corpus import no_choice
from xclip_module.probe.windows import Windows, digest_of, rows_of, stacked
from xclip_module.training.linear import Linear, Problem, fit, make_problem
from xclip_module.training.sweep import is_at_an_end, sweep

# Below this share of a feature's size its deviation is rounding: the feature is constant.
_LEAST_DEVIATION = 1e-5
_FORMS = {"phase": "softmax over {} phases", "tool": "{} one-vs-rest sigmoids", "free": "{} sigmoids, one a sentence"}

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
            group = _Group(self, kind, scale, train, val, otherwise)
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


class _Group:
    """The sweep of one kind of query."""

    def __init__(
        self,
        fitter: Fitter,
        kind: str,
        scale: Scale,
        train: Sequence[Windows],
        val: Sequence[Windows],
        otherwise: Mapping[str, float | None] | None,
    ):
        self.fitter, self.kind, self.scale, self.train, self.val = fitter, kind, scale, train, val
        self.is_quiet, self.otherwise = otherwise is not None, (otherwise or {}).get(kind)
        self.rows: list[dict[str, Any]] = []
        self.penalty: float | None = None

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
                log.info(
                    "%s, penalty %.3g: %s %s (%d steps)", self.kind, penalty, section.monitor, numbers, row["steps"]
                )
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
            numbers = [
                self._number(linear, rows, self.val),
                None if self.is_quiet else self._number(linear, rows, self.train),
            ]
            stored = {
                "weight": linear.weight.cpu().numpy(),
                "bias": linear.bias.cpu().numpy(),
                "facts": np.array([linear.steps, linear.objective, *(np.nan if x is None else x for x in numbers)]),
            }
            self.fitter.store.save(key, stored)
        steps, objective, val, train = stored["facts"].tolist()
        weight, bias = (torch.from_numpy(stored[name]).to(device) for name in ("weight", "bias"))
        row = {"lambda": penalty, "train": _defined(train), "val": _defined(val), "steps": int(steps)}
        return Linear(weight, bias, int(steps), objective), row

    def _number(self, linear: Linear, rows: list[int], videos: Sequence[Windows]) -> float | None:
        kinds, known = [self.kind] * len(rows), torch.ones(len(rows), dtype=torch.bool, device=linear.bias.device)
        curves = []
        for video in videos:
            inputs = (video.features - self.scale.mean) * self.scale.inverse
            curves.append(log_odds(linear.weight @ inputs.T + linear.bias[:, None], kinds, known))
        return mean_over_pairs(curves, videos, rows, self.fitter.section.monitor)

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
        best = next((row["val"] for row in self.rows if row["lambda"] == self.penalty), None)
        form = _FORMS[self.kind].format(len(rows))
        return {
            "kind": self.kind,
            "form": form,
            "lambda": self.penalty,
            "best": best,
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
        values += [
            _of_pair(curve, labels[:, row], monitor) for curve, row in zip(scores.cpu().numpy(), rows, strict=True)
        ]
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _of_pair(curve: np.ndarray, labels: np.ndarray, monitor: str) -> float | None:
    if monitor == "AUPRC":
        return sample_ap(curve, labels)
    ranked = rank_pair(curve, labels)
    return ranked.auroc if ranked else None


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


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value
