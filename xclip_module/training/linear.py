"""Logistic regression on frozen features: one softmax over classes that exclude each other, or a sigmoid a class;
and the search for its penalty on validation data.

N samples, D width, Q classes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from xclip_module.errors import NonFiniteError

# What lies below this share of the largest variance is rounding, which must not be blown up.
_LEAST_VARIANCE = 1e-6
# Corrections that L-BFGS remembers, and the largest component of the gradient at which it ends.
_HISTORY, _TOLERANCE = 20, 1e-6
# Decades of the first grid, strongest first so that each fit begins near its end, and the steps of its refinements.
_COARSE = (6.0, 4.0, 2.0, 0.0, -2.0, -4.0, -6.0)
_REFINEMENTS = (1.0, 0.5, 0.25, 0.125)


class Linear(NamedTuple):
    """A fitted head: weight [Q, D], bias [Q], the evaluations that it took, and the objective's value there."""

    weight: Tensor
    bias: Tensor
    steps: int
    objective: float


class Problem(NamedTuple):
    """What a head is fitted to.

    features: [N, D] float32, standardised.  labels: [N, Q] bool.
    shares: [N, Q] float32, how much a sample counts for a class, mean 1 over those that count at all, 0 = unknown. Of
        a softmax all columns are the same.
    counted: [Q] samples that count.
    is_exclusive: a softmax over the classes.
    axes, variance: [D, D] and [D], eigenvectors and eigenvalues of the features' second moments.
    """

    features: Tensor
    labels: Tensor
    shares: Tensor
    counted: Tensor
    is_exclusive: bool
    axes: Tensor
    variance: Tensor


def make_problem(features: Tensor, labels: Tensor, known: Tensor, *, is_exclusive: bool, is_balanced: bool) -> Problem:
    """A problem whose every class has positive and other samples.

    features: [N, D].  labels, known: [N, Q] bool.
    is_balanced: every class weighs the same in a softmax, positives and negatives in a sigmoid, as scikit-learn's
        `class_weight="balanced"`.
    Raises NonFiniteError for NaN, infinity, or what is too large to be squared.
    """
    if is_exclusive:
        # A time without a phase teaches a softmax nothing.
        rows = labels.any(dim=1) & known.all(dim=1)
        if not rows.all():  # a copy of all windows is the largest thing in memory
            features, labels = features[rows], labels[rows]
        share = torch.ones(len(labels), device=features.device)
        if is_balanced:
            share = (len(labels) / labels.shape[1] / labels.sum(0).float())[labels.float().argmax(1)]
        shares = share[:, None].expand(labels.shape)
        counted = torch.full((labels.shape[1],), float(len(labels)), device=features.device)
    else:
        counted = known.sum(0).float()
        positive = (labels & known).sum(0).float()
        shares = known.float()
        if is_balanced:
            shares = shares * torch.where(labels, counted / 2 / positive, counted / 2 / (counted - positive))
    moments = features.T @ features / len(features)
    if not torch.isfinite(moments).all():
        raise NonFiniteError("features of a linear head are not finite", attempt="--run.precision=fp32")
    variance, axes = torch.linalg.eigh(moments.double())
    return Problem(features, labels, shares, counted, is_exclusive, axes.float(), variance.clamp(min=0).float())


def fit(problem: Problem, penalty: float, *, start: Linear | None = None, max_steps: int = 1000) -> Linear:
    """The minimum of Σ share · loss + penalty/2 · |weight|², the bias free: scikit-learn's with C = 1 / penalty.

    start: a former solution nearby.  max_steps: evaluations after which the search ends where it is.
    Raises NonFiniteError where the objective is not finite.

    Source: L-BFGS as CLIP's linear probe (Radford et al. 2021, section A.3). Unlike there it searches in coordinates in
    which the curvature is alike in all directions, by the bound of Böhning (1992), Multinomial logistic regression
    algorithm: the same minimum in a twentieth of the steps where features are uneven.
    """
    width, classes = problem.features.shape[1], problem.labels.shape[1]
    ridge = penalty / problem.counted.mean()
    floor = _LEAST_VARIANCE * problem.variance.max().clamp(min=1e-12)
    # Böhning's bound: the curvature of a softmax is at most half of the features' second moments.
    scale = (problem.variance / 2 + ridge + floor).rsqrt()
    basis = (problem.axes * scale).T  # weight = point @ basis
    point = torch.zeros(classes, width, device=problem.features.device)
    bias = torch.zeros(classes, device=problem.features.device)
    if start is not None:
        point, bias = (start.weight @ problem.axes) / scale, start.bias.clone()
    # Outside of any inference mode that a caller may be in.
    with torch.inference_mode(False), torch.enable_grad():
        point, bias = point.clone().requires_grad_(), bias.clone().requires_grad_()
        steps, value = _search(problem, penalty, basis, (point, bias), max_steps)
    return Linear(point.detach() @ basis, bias.detach(), steps, float(value))


def _search(
    problem: Problem, penalty: float, basis: Tensor, parameters: tuple[Tensor, Tensor], max_steps: int
) -> tuple[int, Tensor]:
    """Moves the parameters to the minimum; evaluations and the last value."""
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=max_steps,
        max_eval=max_steps,
        history_size=_HISTORY,
        tolerance_grad=_TOLERANCE,
        tolerance_change=1e-10,
        line_search_fn="strong_wolfe",
    )
    steps = 0

    def closure() -> Any:
        nonlocal steps
        steps += 1
        optimizer.zero_grad()
        value = _objective(problem, penalty, basis, *parameters)
        if not torch.isfinite(value):  # before torch's line search ends in an error of its own
            why = f"its objective is {value.item()}"
            raise NonFiniteError("a linear head diverges", why=why, attempt="other features")
        value.backward()
        return value

    optimizer.step(closure)
    with torch.no_grad():
        return steps, _objective(problem, penalty, basis, *parameters)


def _objective(problem: Problem, penalty: float, basis: Tensor, point: Tensor, bias: Tensor) -> Tensor:
    """Per sample, so that its gradient has the same size whatever N is; of sigmoids the sum over the classes."""
    weight = point @ basis  # [Q, D]
    # As a layer, whose gradient is a product of wide rows; that of features @ weight.T takes seven times as long.
    logits = functional.linear(problem.features, weight, bias)
    if problem.is_exclusive:
        losses = functional.cross_entropy(logits, problem.labels.float().argmax(1), reduction="none")
        mean = (losses * problem.shares[:, 0]).sum() / problem.counted[0]
        return mean + penalty / 2 * weight.square().sum() / problem.counted[0]
    targets = problem.labels.float()
    losses = functional.binary_cross_entropy_with_logits(logits, targets, problem.shares, reduction="none")
    return ((losses.sum(0) + penalty / 2 * weight.square().sum(1)) / problem.counted).sum()


def sweep(score: Callable[[float], float]) -> float:
    """The penalty with the largest score; of equal ones the strongest.

    score: from a penalty to a validation number. It is asked 7 times from 1e6 down to 1e-6, then twice around the best
    at half the distance, down to eight steps a decade.

    Source: "parametric binary search" of CLIP's linear probe (Radford et al. 2021, section A.3).

    >>> import math
    >>> f"{sweep(lambda penalty: -abs(math.log10(penalty) - 1.1)):.3f}"
    '13.335'
    """
    scores = {decades: score(10**decades) for decades in _COARSE}
    for step in _REFINEMENTS:
        centre = _best(scores)
        for decades in (centre + step, centre - step):
            if _COARSE[-1] <= decades <= _COARSE[0]:
                scores[decades] = score(10**decades)
    return 10 ** _best(scores)


def is_at_an_end(penalty: float) -> bool:
    """Whether the search may have wanted to go on.

    >>> is_at_an_end(1e6), is_at_an_end(1e-6), is_at_an_end(1.0)
    (True, True, False)
    """
    return not 1.001 * 10 ** _COARSE[-1] < penalty < 0.999 * 10 ** _COARSE[0]


def _best(scores: dict[float, float]) -> float:
    return max(scores, key=lambda decades: (scores[decades], decades))
