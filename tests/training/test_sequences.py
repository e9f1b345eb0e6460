"""Training on whole videos: what the loss counts, that a temporal signal is learned, and that a stopped fit goes on."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from xclip_module.errors import NonFiniteError, WeightsError
from xclip_module.models.temporal_head import TemporalHead
from xclip_module.training import checkpoint
from xclip_module.training.sequences import SequenceRecipe, VideoSequence, fit_sequences, sequence_loss

pytestmark = pytest.mark.usefixtures("one_thread")
GROUPS = ((0, 3, 2), (5, 4))
ALL_EXCLUSIVE = ((0, 3, 2), (5, 4), (1, 6))


def video(name="a", windows=12, width=3, queries=7, share_known=0.8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels, known = (torch.rand(queries, windows, generator=draw) < share for share in (0.4, share_known))
    return VideoSequence(name, torch.randn(windows, width, generator=draw), labels, known)


def random_logits(stages, sequence, seed=3):
    draw = torch.Generator().manual_seed(seed)
    return 4 * torch.randn(stages, *sequence.labels.shape, generator=draw, dtype=torch.float64)


WEIGHTS = torch.rand(7, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 0.5


def mean(values):
    return sum(values) / len(values) if values else 0.0


def slow_loss(logits, sequence, exclusive):
    """Cell by cell, as the docstring says it."""
    labels, known, weights = sequence.labels.numpy(), sequence.known.numpy(), WEIGHTS.numpy()
    alone = [row for row in range(len(labels)) if not any(row in group for group in exclusive)]
    times = range(labels.shape[1])
    total = 0.0
    for stage in logits.numpy():
        for group in exclusive:
            logs = {
                (q, m): stage[q, m] - math.log(sum(math.exp(stage[p, m]) for p in group)) for q in group for m in times
            }
            counts = [m for m in times if all(known[q, m] for q in group)]
            true = {m: [q for q in group if labels[q, m]] for m in counts}
            total += mean([-weights[true[m][0], 1] * logs[true[m][0], m] for m in counts if len(true[m]) == 1])
            pairs = [m for m in counts if m - 1 in counts]
            total += 0.15 * mean([min(abs(logs[q, m] - logs[q, m - 1]), 4) ** 2 for m in pairs for q in group])
        probs = 1 / (1 + np.exp(-stage))
        cells = [(q, m) for q in alone for m in times if known[q, m]]
        each = [
            weights[q, int(labels[q, m])] * -math.log(probs[q, m] if labels[q, m] else 1 - probs[q, m])
            for q, m in cells
        ]
        total += mean(each)
        both = [(q, m) for q, m in cells if (q, m - 1) in cells]
        total += 0.15 * mean([min(abs(math.log(probs[q, m] / probs[q, m - 1])), 4) ** 2 for q, m in both])
    return total / len(logits)


@pytest.mark.parametrize("exclusive", [GROUPS, (), ALL_EXCLUSIVE], ids=["some", "no group", "groups only"])
@pytest.mark.parametrize("windows", [1, 2, 40])
@pytest.mark.parametrize("share_known", [0.0, 0.8, 1.1])
def test_the_loss_equals_the_obvious_loops(exclusive, windows, share_known):
    sequence = video(windows=windows, share_known=share_known)
    logits = random_logits(2, sequence)
    found = sequence_loss(logits, sequence, weights=WEIGHTS, exclusive=exclusive)
    assert found.item() == pytest.approx(slow_loss(logits, sequence, exclusive), abs=1e-12)


def test_an_unknown_cell_and_the_group_at_its_time_have_no_gradient_and_no_say():
    sequence = video(windows=60)
    logits = random_logits(2, sequence).requires_grad_()
    loss = sequence_loss(logits, sequence, weights=WEIGHTS, exclusive=GROUPS)
    (gradient,) = torch.autograd.grad(loss, logits)
    without = ~sequence.known
    for rows in map(list, GROUPS):
        without[rows] = without[rows].any(0)
    assert (gradient[:, without] == 0).all()
    assert (gradient[:, ~without] != 0).double().mean() > 0.7  # the rest: a group without one true row, a jump
    other = sequence._replace(labels=sequence.labels ^ ~sequence.known)
    assert sequence_loss(logits, other, weights=WEIGHTS, exclusive=GROUPS) == loss


def test_smoothing_moves_the_later_of_two_times_and_not_at_all_over_a_jump():
    """Nothing is true in the group, so that only the smoothing is left; times 0-1 are a slope, times 1-2 a jump."""
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    sequence = VideoSequence("a", torch.zeros(3, 1), nothing, ~nothing)
    logits = torch.tensor([[[0.0, 1.0, 90.0], [0.0, 0.0, 0.0]]], requires_grad=True)
    loss = sequence_loss(logits, sequence, weights=torch.ones(2, 2), exclusive=[(0, 1)])
    up, down = math.log(2 * math.e / (1 + math.e)), math.log(2 / (1 + math.e))
    # Of the jump, the row that rises is at log-probability 0 already.
    jump = (up - math.log(2)) ** 2 + 4**2
    assert loss.item() == pytest.approx(0.15 * (up**2 + down**2 + jump) / 4, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[..., 0] == 0).all()
    assert (gradient[..., 1] != 0).all()
    assert gradient[..., 2].abs().max() < 1e-6


def echo(name, seed, windows=100, delay=3):
    """Random bits; rows 0 and 1 say whether the bit `delay` windows before was 0 or 1, row 2 the same as row 1."""
    bits = torch.randint(2, (windows,), generator=torch.Generator().manual_seed(seed)).bool()
    before = bits.roll(delay)
    known = (torch.arange(windows) >= delay).expand(3, windows)
    return VideoSequence(name, 2.0 * bits[:, None] - 1, torch.stack([~before, before, before]), known)


@pytest.mark.parametrize(
    ("layers", "is_causal", "least", "most"), [(2, True, 0.97, 1), (2, False, 0.97, 1), (0, True, 0.4, 0.6)]
)
def test_what_came_before_is_learned_and_a_single_window_stays_at_chance(tmp_path, layers, is_causal, least, most):
    """A plain head over single windows is one without layers."""
    make = partial(TemporalHead, 1, 3, exclusive=[(0, 1)], channels=16, layers=layers, is_causal=is_causal)
    fit = fit_sequences(
        make,
        [echo(str(seed), seed) for seed in range(4)],
        loss=partial(sequence_loss, weights=torch.ones(3, 2), exclusive=[(0, 1)]),
        validate=lambda model: None,
        recipe=SequenceRecipe(epochs=15, seed=0, lr=2e-2),
        folder=tmp_path,
        key="",
    )
    model, new = make().eval(), echo("new", 99, windows=600)
    model.load_state_dict(fit.state)
    logits = model(new.features)[-1]
    counts = new.known[0]
    phases = (logits[1] > logits[0]) == new.labels[1]
    assert least <= phases[counts].double().mean() <= most
    assert least <= ((logits[2] > 0) == new.labels[2])[counts].double().mean() <= most


VIDEOS = [video(name, windows, seed=seed) for seed, (name, windows) in enumerate([("a", 12), ("b", 1), ("c", 7)])]
LOSS = partial(sequence_loss, weights=WEIGHTS, exclusive=GROUPS)
VALUES = (0.1, 0.5, 0.5, 0.3)


def make_head():
    return TemporalHead(3, 7, exclusive=GROUPS, channels=4, layers=2)


def value_of(model):
    """A val number that depends on the weights, and on them alone."""
    return float(torch.sin(1e3 * model.stages[0][0].weight).sum())


def fitted(folder, *, epochs=4, seed=0, key="k", **changes):
    given = {"make_model": make_head, "sequences": VIDEOS, "loss": LOSS, "validate": value_of, **changes}
    make, videos = given.pop("make_model"), given.pop("sequences")
    return fit_sequences(make, videos, **given, recipe=SequenceRecipe(epochs, seed, lr=1e-2), folder=folder, key=key)


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def stored(folder):
    """The state of the newest checkpoint."""
    found = checkpoint.newest(folder)
    assert found is not None
    return found.state


def scripted(values, seen=None):
    """A validation that gives these numbers in turn, and keeps the weights that it was shown."""
    left = iter(values)

    def validate(model):
        assert not model.training
        if seen is not None:
            seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return next(left)

    return validate


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_stopped_in_any_epoch_and_started_again_it_ends_with_the_same_bits(tmp_path, stop):
    left = stop

    def until(model):
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return value_of(model)

    whole = fitted(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "parts", validate=until)
    torch.manual_seed(stop)
    parts = fitted(tmp_path / "parts")
    assert equal(parts, whole)
    assert equal(stored(tmp_path / "parts"), stored(tmp_path / "whole"))


def test_a_finished_fit_is_read_and_not_trained_again(tmp_path):
    whole = fitted(tmp_path)
    assert equal(fitted(tmp_path, loss=None, validate=None), whole)


@pytest.mark.parametrize("change", [{"key": "other"}, {"epochs": 2}, {"seed": 1}])
def test_another_key_or_recipe_starts_anew(tmp_path, change):
    fitted(tmp_path / "used", epochs=3)
    found = fitted(tmp_path / "used", **{"epochs": 3, **change})
    assert equal(found, fitted(tmp_path / "fresh", **{"epochs": 3, **change}))
    assert equal(stored(tmp_path / "used"), stored(tmp_path / "fresh"))


def test_checkpoints_of_another_key_are_gone_before_the_first_step(tmp_path):
    def stop(logits, sequence):
        raise KeyboardInterrupt

    fitted(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path, key="other", loss=stop)
    assert checkpoint.newest(tmp_path) is None


def test_a_checkpoint_of_something_else_is_left_alone(tmp_path):
    path = checkpoint.save(tmp_path, {"model": {}}, step=7, keep=2)
    with pytest.raises(WeightsError, match=r"step-00000007\.pt: it bears no key"):
        fitted(tmp_path)
    assert checkpoint.read(path) == {"model": {}}


@pytest.mark.parametrize(
    ("values", "best_epoch"),
    [
        (VALUES, 2),
        ((None,) * 4, 4),
        ((None, 0.2, None, 0.1), 2),
        ((-3.0, -2.0, -2.5, None), 2),
        ((0.0, -1.0, -1.0, -1.0), 1),
    ],
)
def test_the_first_best_epoch_is_kept_and_without_val_the_last(tmp_path, values, best_epoch):
    seen: list[dict[str, torch.Tensor]] = []
    fit = fitted(tmp_path, validate=scripted(values, seen))
    assert (fit.best_epoch, fit.best) == (best_epoch, values[best_epoch - 1])
    assert equal(fit.state, seen[best_epoch - 1])
    assert not equal(seen[0], seen[1])
    assert [row["val"] for row in fit.curve] == list(values)
    assert [row["epoch"] for row in fit.curve] == [1, 2, 3, 4]


def recorded(calls):
    """The usual loss, which notes what it was asked and what it gave."""

    def loss(logits, sequence):
        found = LOSS(logits, sequence)
        calls.append((sequence.video, logits.detach().clone(), found.item()))
        return found

    return loss


def test_every_epoch_has_every_video_once_in_an_order_of_its_own_and_its_mean_loss(tmp_path):
    calls: list[tuple] = []
    again: list[tuple] = []
    other: list[tuple] = []
    fit = fitted(tmp_path / "a", epochs=6, loss=recorded(calls))
    fitted(tmp_path / "b", epochs=6, loss=recorded(again))
    fitted(tmp_path / "c", epochs=6, loss=recorded(other), seed=1)
    orders = ["".join(name for name, _, _ in calls[start : start + 3]) for start in range(0, 18, 3)]
    assert {"".join(sorted(order)) for order in orders} == {"abc"}
    assert len(set(orders)) > 2
    assert equal(calls, again)
    assert [name for name, _, _ in calls] != [name for name, _, _ in other]
    losses = [mean([loss for _, _, loss in calls[start : start + 3]]) for start in range(0, 18, 3)]
    assert [row["loss"] for row in fit.curve] == pytest.approx(losses, abs=1e-12)


def test_dropout_is_a_function_of_seed_epoch_and_video_alone(tmp_path):
    """Weights that do not move and videos of equal features show the dropout alone."""
    same = [VIDEOS[0]._replace(video=name) for name in "ab"]
    calls = []

    def still(logits, sequence):
        calls.append((sequence.video, logits.detach().clone()))
        return 0 * logits.sum()

    def run(folder, videos, seed):
        calls.clear()
        recipe = SequenceRecipe(2, seed, weight_decay=0.0)
        words = {"validate": lambda model: None, "recipe": recipe, "folder": tmp_path / folder, "key": ""}
        fit_sequences(lambda: fixed, videos, loss=still, **words)
        return {(name, place // len(videos)): logits for place, (name, logits) in enumerate(calls)}

    fixed = make_head()
    both, alone, other = run("both", same, 0), run("alone", same[1:], 0), run("other", same, 1)
    assert all(torch.equal(alone[name], both[name]) for name in alone)
    every = [*both.values(), *other.values()]
    assert len({tuple(logits.flatten().tolist()) for logits in every}) == 8


def test_the_callers_generator_neither_steers_a_fit_nor_is_moved_by_it(tmp_path):
    torch.manual_seed(1)
    one = fitted(tmp_path / "a")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    other = fitted(tmp_path / "b")
    assert equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    assert not equal(fitted(tmp_path / "c", seed=1).state, one.state)


class Weight(nn.Module):
    """One number, which is its logit at every time."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))

    def forward(self, features):
        return self.value.expand(1, 7, len(features))


def test_the_rate_goes_down_a_cosine_to_nothing_and_gradients_are_clipped(tmp_path):
    """Under one and the same gradient a step of Adam is as long as the rate."""
    model = Weight()
    seen: list[dict[str, torch.Tensor]] = []
    changes = {"make_model": lambda: model, "sequences": VIDEOS[:1], "validate": scripted((None,) * 4, seen)}
    fitted(tmp_path, loss=lambda logits, _: 1e3 * logits.mean(), **changes)
    places = [0.0, *(state["value"].item() for state in seen)]
    steps = [1e-2 * 0.5 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert (-np.diff(places)).tolist() == pytest.approx(steps, rel=1e-4)
    assert model.value.grad is not None
    assert model.value.grad.norm().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("fault", "what"), [("loss", "loss nan"), ("gradient", "gradient norm nan")])
def test_a_loss_that_is_no_number_names_epoch_and_video_and_leaves_the_checkpoint_before(tmp_path, fault, what):
    calls = 0

    def loss(logits, sequence):
        nonlocal calls
        calls += 1
        if calls <= 3 or sequence.video != "c":
            return LOSS(logits, sequence)
        return logits.sum() * torch.nan if fault == "loss" else (0 * logits.sum()).sqrt()

    with pytest.raises(NonFiniteError, match=f"not finite: c: epoch 2, .*{what}"):
        fitted(tmp_path, loss=loss)
    found = stored(tmp_path)
    assert len(found["curve"]) == 1
    assert all(tensor.isfinite().all() for tensor in found["model"].values())


def test_a_val_number_that_is_no_number_names_the_epoch(tmp_path):
    with pytest.raises(NonFiniteError, match="epoch 2, nan"):
        fitted(tmp_path, validate=scripted((0.5, math.nan)))


def test_videos_that_do_not_fit_together_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="no videos"):
        fitted(tmp_path, sequences=[])
    for wrong in ({"known": VIDEOS[0].known[:, :1]}, {"labels": VIDEOS[0].labels[:1]}, {"features": torch.zeros(5, 3)}):
        with pytest.raises(ValueError, match=r"a: features, labels, known: found \["):
            fitted(tmp_path, sequences=[VIDEOS[1], VIDEOS[0]._replace(**wrong)])
