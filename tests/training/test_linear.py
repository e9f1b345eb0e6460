"""The linear head: scikit-learn's minimum, what has no say in it, the sweep, and a planted signal found through it."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from support.probe_factory import fitter_of, windows_of

from xclip_module.errors import NonFiniteError
from xclip_module.interface import Query
from xclip_module.probe.fit import make_head
from xclip_module.training.linear import Linear, fit, is_at_an_end, make_problem, sweep

pytestmark = pytest.mark.usefixtures("one_thread")
# Of log-odds, which are a few units large: float32 and a gradient of 1e-6 leave this much.
TOLERANCE = 5e-3


def data(*, count=400, width=6, is_exclusive=False, seed=0):
    """Features of unlike sizes and a noisy linear signal; of a softmax one class a row, rare ones too."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, width)) * np.linspace(0.3, 2, width)
    logits = features @ rng.normal(size=(width, 3)) + [1.0, 0.0, -1.5] + rng.gumbel(size=(count, 3))
    labels = logits.argmax(1)[:, None] == np.arange(3) if is_exclusive else logits > 0
    return torch.tensor(features, dtype=torch.float32), torch.tensor(labels)


def problem_of(features, labels, known=None, *, is_exclusive=False, is_balanced=False):
    known = torch.ones_like(labels) if known is None else known
    return make_problem(features, labels, known, is_exclusive=is_exclusive, is_balanced=is_balanced)


def sklearn_fit(features, targets, penalty, *, is_balanced):
    weights = "balanced" if is_balanced else None
    model = LogisticRegression(C=1 / penalty, class_weight=weights, tol=1e-10, max_iter=20000)
    return model.fit(features.double().numpy(), targets)


@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("is_balanced", [False, True], ids=["plain", "balanced"])
def test_a_softmax_is_scikit_learns(penalty, is_balanced):
    features, labels = data(is_exclusive=True)
    found = fit(problem_of(features, labels, is_exclusive=True, is_balanced=is_balanced), penalty)
    expected = sklearn_fit(features, labels.int().argmax(1).numpy(), penalty, is_balanced=is_balanced)
    ours = (features @ found.weight.T + found.bias).log_softmax(1)
    theirs = expected.predict_log_proba(features.double().numpy())
    np.testing.assert_allclose(ours.numpy(), theirs, atol=TOLERANCE)
    np.testing.assert_allclose(found.weight.numpy(), expected.coef_, atol=TOLERANCE)


@pytest.mark.parametrize("penalty", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("is_balanced", [False, True], ids=["plain", "balanced"])
def test_every_sigmoid_is_scikit_learns_on_the_rows_that_are_known(penalty, is_balanced):
    features, labels = data()
    known = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.8
    found = fit(problem_of(features, labels, known, is_balanced=is_balanced), penalty)
    for row in range(3):
        kept = known[:, row]
        expected = sklearn_fit(features[kept], labels[kept, row].numpy(), penalty, is_balanced=is_balanced)
        np.testing.assert_allclose(found.weight[row].numpy(), expected.coef_[0], atol=TOLERANCE)
        assert found.bias[row].item() == pytest.approx(expected.intercept_[0], abs=TOLERANCE)


@pytest.mark.parametrize("is_exclusive", [False, True], ids=["sigmoid", "softmax"])
def test_the_bias_is_free_so_that_under_an_endless_penalty_each_class_has_its_frequency(is_exclusive):
    features, labels = data(is_exclusive=is_exclusive)
    found = fit(problem_of(features, labels, is_exclusive=is_exclusive), 1e9)
    assert found.weight.abs().max() < 1e-5
    probs = found.bias.softmax(0) if is_exclusive else found.bias.sigmoid()
    torch.testing.assert_close(probs, labels.float().mean(0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("is_exclusive", [False, True], ids=["sigmoid", "softmax"])
def test_a_start_nearby_leads_to_the_same_minimum_in_fewer_steps(is_exclusive):
    torch.manual_seed(0)
    problem = problem_of(*data(is_exclusive=is_exclusive), is_exclusive=is_exclusive)
    cold = fit(problem, 1.0)
    near = fit(problem, 1.0, start=fit(problem, 1.3))
    torch.testing.assert_close(near.weight, cold.weight, atol=TOLERANCE, rtol=0)
    assert near.objective == pytest.approx(cold.objective, abs=1e-6)
    again = fit(problem, 1.0, start=cold)
    assert again.steps < near.steps < cold.steps
    far = fit(problem, 1.0, start=Linear(torch.randn(3, 6) * 3, torch.randn(3) * 3, 0, 0.0))
    torch.testing.assert_close(far.weight, cold.weight, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("is_balanced", [False, True], ids=["plain", "balanced"])
def test_an_unknown_cell_has_no_say_bit_for_bit(is_balanced):
    features, labels = data()
    known = torch.rand(labels.shape, generator=torch.Generator().manual_seed(2)) < 0.7
    found = fit(problem_of(features, labels, known, is_balanced=is_balanced), 0.1)
    other = fit(problem_of(features, labels ^ ~known, known, is_balanced=is_balanced), 0.1)
    assert torch.equal(found.weight, other.weight)
    assert torch.equal(found.bias, other.bias)
    everything = fit(problem_of(features, labels ^ ~known, is_balanced=is_balanced), 0.1)
    assert not torch.equal(found.weight, everything.weight)


def test_a_row_without_a_phase_or_with_an_unknown_one_has_no_say_in_a_softmax():
    features, labels = data(is_exclusive=True)
    known = torch.ones_like(labels)
    labels[::5] = False
    known[1::5, 0] = False
    kept = labels.any(1) & known.all(1)
    found = fit(problem_of(features, labels, known, is_exclusive=True, is_balanced=True), 0.1)
    expected = fit(problem_of(features[kept], labels[kept], is_exclusive=True, is_balanced=True), 0.1)
    assert torch.equal(found.weight, expected.weight)
    assert torch.equal(found.bias, expected.bias)


def test_what_a_problem_is_made_of_stays_as_it_was():
    features, labels = data()
    before = features.clone(), labels.clone()
    fit(problem_of(features, labels), 1.0)
    assert torch.equal(features, before[0])
    assert torch.equal(labels, before[1])


def test_max_steps_ends_the_search_and_the_objective_only_falls():
    problem = problem_of(*data())
    whole = fit(problem, 1e-6)
    found = [fit(problem, 1e-6, max_steps=most) for most in (1, 3, 6, 1000)]
    assert found[-1].steps == whole.steps > 8
    # The last search along a line may take a few more.
    assert all(one.steps <= most + 2 for one, most in zip(found, (1, 3, 6), strict=False))
    values = [one.objective for one in found]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] + 1e-3


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("is_exclusive", [False, True], ids=["sigmoid", "softmax"])
def test_features_that_are_not_finite_are_refused(value, is_exclusive):
    features, labels = data(is_exclusive=is_exclusive)
    features[7, 2] = value
    with pytest.raises(NonFiniteError, match="not finite"):
        fit(problem_of(features, labels, is_exclusive=is_exclusive), 1.0)


def test_an_objective_that_is_not_finite_is_refused():
    problem = problem_of(*data())
    with pytest.raises(NonFiniteError, match="a linear head diverges: its objective is nan"):
        fit(problem._replace(shares=problem.shares * math.nan), 1.0)


@pytest.mark.parametrize("is_exclusive", [False, True], ids=["sigmoid", "softmax"])
def test_uneven_features_take_a_third_of_the_evaluations_of_plain_lbfgs(is_exclusive):
    """Plain = the same objective in the coordinates of the weights; it needs over thirty times as many."""
    rng = np.random.default_rng(0)
    width = 48
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
    features = torch.tensor(rng.normal(size=(1500, width)) * np.logspace(0, -3, width) @ turn, dtype=torch.float32)
    features = features / features.std()
    logits = torch.tensor(rng.normal(size=(1500, 4))) + 2 * features[:, :4]
    labels = logits.argmax(1)[:, None] == torch.arange(4) if is_exclusive else logits > 0
    problem = problem_of(features, labels, is_exclusive=is_exclusive)
    found = fit(problem, 1e-2)
    lowest = plain_lbfgs(problem, 1e-2, most=3 * found.steps)
    assert lowest > found.objective + 1e-4


def plain_lbfgs(problem, penalty, *, most):
    """What torch's own L-BFGS comes down to, without the other coordinates."""
    count, width = problem.features.shape
    weight = torch.zeros(problem.labels.shape[1], width, requires_grad=True)
    bias = torch.zeros(len(weight), requires_grad=True)
    targets = problem.labels.float()
    seen = []

    def closure():
        optimizer.zero_grad()
        logits = problem.features @ weight.T + bias
        if problem.is_exclusive:
            value = torch.nn.functional.cross_entropy(logits, targets)
        else:
            value = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets) * len(weight)
        value = value + penalty / 2 * weight.square().sum() / count
        value.backward()
        seen.append(value.item())
        return value

    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=most,
        max_eval=most,
        history_size=20,
        tolerance_grad=0,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    optimizer.step(closure)
    assert len(seen) >= most
    return min(seen)


@settings(max_examples=60, deadline=None)
@given(peak=st.floats(-7, 7), sharpness=st.floats(0.1, 3), skew=st.floats(-0.05, 0.05))
def test_the_sweep_finds_the_grids_best_of_scores_with_one_peak(peak, sharpness, skew):
    """The slow way: every penalty at eight steps a decade."""

    def score(penalty):
        distance = math.log10(penalty) - peak
        return -sharpness * abs(distance) * (1 + skew * math.copysign(1, distance))

    grid = [10 ** (step / 8) for step in range(-48, 49)]
    assert score(sweep(score)) == pytest.approx(max(map(score, grid)), abs=1e-9)


def asked_of(score):
    asked = []

    def ask(penalty):
        asked.append(penalty)
        return score(penalty)

    return sweep(ask), asked


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_sweep_asks_from_strong_to_weak_never_twice_and_at_most_15_times(drawn):
    _, asked = asked_of(lambda _: drawn.draw(st.integers(0, 3)))
    assert asked[:7] == [10.0**decades for decades in (6, 4, 2, 0, -2, -4, -6)]
    assert len(set(asked)) == len(asked) <= 15
    assert all(1e-6 <= penalty <= 1e6 for penalty in asked)


def test_of_equal_scores_the_strongest_penalty_wins():
    assert sweep(lambda _: 0.5) == 1e6
    assert sweep(lambda penalty: float(penalty <= 2000)) == pytest.approx(10**3.25)
    assert sweep(lambda _: -math.inf) == 1e6


@pytest.mark.parametrize(("penalty", "is_end"), [(1e6, True), (1e-6, True), (10**5.875, False), (10**-5.875, False)])
def test_an_end_of_the_range_is_known(penalty, is_end):
    assert is_at_an_end(penalty) is is_end


WIDTH = 16
DISTANCES = (1.0, 2.0)
PLANTED = (*(Query(f"p{n}", f"p{n}", "phase") for n in range(3)), *(Query(f"t{n}", f"t{n}", "tool") for n in range(2)))


def planted(count, rng):
    """Features [M, D], labels [M, Q], and the log-odds [M, Q] that know how they were made.

    Gaussians that share a covariance. Phases and tools shift the whitened features in directions at right angles, so
    that what is best for one is linear and ignores the others. Equal windows stand together: fewer segments.
    """
    fixed = np.random.default_rng(5)
    mixing = fixed.normal(size=(WIDTH, WIDTH)) * np.logspace(0, -1, WIDTH)
    axes = np.linalg.qr(fixed.normal(size=(WIDTH, WIDTH)))[0]
    means = axes[:5] * [[1.5], [1.5], [1.5], *([distance] for distance in DISTANCES)]
    cells = np.sort(rng.choice(12, size=count, p=np.tile([0.45, 0.05], 6) / 3))
    labels = np.stack([*(cells // 4 == phase for phase in range(3)), cells // 2 % 2 == 1, cells % 2 == 1], axis=1)
    white = labels @ means + rng.normal(size=(count, WIDTH))
    best = white @ means.T
    others = np.logaddexp(best[:, [1, 0, 0]], best[:, [2, 2, 1]])
    best[:, :3] -= others
    return white @ mixing, labels, best


def areas(scores, labels):
    return [roc_auc_score(labels[:, row], scores[row]) for row in range(labels.shape[1])]


def held_out_areas(tmp_path, videos, features, labels):
    """AUROC of each query on windows that no fit has seen."""
    fitter = fitter_of(tmp_path, queries=PLANTED, penalty=0.01)
    fitted = fitter.fit(videos, [], otherwise={})
    head = make_head(fitted, PLANTED, None, {}, {})
    return areas(head.scores(torch.tensor(features, dtype=torch.float32)).numpy(), labels)


def test_a_planted_signal_is_found_as_well_as_bayes_knows_it(tmp_path):
    """1e5 windows of 5 videos; for tools the best AUROC is Φ(d / √2) by hand, for phases that of the true log-odds."""
    rng = np.random.default_rng(0)
    made = [planted(20_000, rng)[:2] for _ in range(5)]
    videos = [windows_of(f"v{number}", *parts, queries=PLANTED) for number, parts in enumerate(made)]
    features, labels, best = planted(60_000, rng)
    found = held_out_areas(tmp_path, videos, features, labels)
    expected = areas(best.T, labels)
    assert expected[3:] == pytest.approx([NormalDist().cdf(d / math.sqrt(2)) for d in DISTANCES], abs=0.01)
    assert found == pytest.approx(expected, abs=0.01)
    assert min(found) > 0.7


def test_shuffled_labels_are_chance(tmp_path):
    """Within three standard errors of the Mann-Whitney statistic."""
    rng = np.random.default_rng(1)
    made = [planted(20_000, rng)[:2] for _ in range(5)]
    videos = [
        windows_of(f"v{number}", rng.permutation(features), labels, queries=PLANTED)
        for number, (features, labels) in enumerate(made)
    ]
    features, labels, _ = planted(20_000, rng)
    features = rng.permutation(features)
    for found, positive in zip(held_out_areas(tmp_path, videos, features, labels), labels.sum(0), strict=True):
        negative = len(labels) - positive
        error = math.sqrt((len(labels) + 1) / (12 * positive * negative))
        assert abs(found - 0.5) < 3 * error
