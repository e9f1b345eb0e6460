"""The training loop on a toy: whatever ends it, it goes on to the same bits; skips, stops and choices as promised."""

import copy
import os
import random
import signal
from typing import NamedTuple

import pytest
import torch
from torch import nn

from xclip_module.errors import DataError, DiskError, MemoryShortage, NonFiniteError
from xclip_module.interface import Batch
from xclip_module.run.signals import Signals
from xclip_module.training.engine import Rules, Trainer, fit
from xclip_module.training.optim import build_optimizer, parameter_groups, warmup_cosine

TOTAL = 23
RULES = Rules(
    total=TOTAL,
    validate_every=5,
    save_every=4,
    log_every=3,
    patience=0,
    monitor="AUROC",
    max_grad_norm=1.0,
    max_skipped=3,
    if_short="--finetune.micro_batch_size=1",
)


class Loss(NamedTuple):
    loss: float
    floor: float
    accuracy: float


def a_batch(step):
    rows = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
    empty = torch.zeros(0)
    return Batch(rows, empty, 0, empty, empty, empty, empty, empty, tuple(f"clip{step}-{n}" for n in range(6)))


class World:
    """Everything but the loop: the model, its steps, the last checkpoint, the log, and a place to cut it."""

    def __init__(self, *, cut=lambda name: None, poison=(), scaled=False):
        self.cut, self.poison, self.scaled = cut, set(poison), scaled
        self.stored, self.rows, self.best, self.saves = None, [], None, 0
        self.signals = Signals()

    def make_trainer(self):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1)).train()
        groups = parameter_groups(
            model.named_parameters(), pretrained=set(), lr=0.01, pretrained_lr_scale=1, weight_decay=0.1, rule="adamw"
        )
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4, growth_interval=4, enabled=self.scaled)
        self.trainer = Trainer(
            model, build_optimizer("adamw", groups), scaler, factor=lambda s: warmup_cosine(s, TOTAL, 0.2)
        )
        if self.stored is not None:
            self.trainer.restore(copy.deepcopy(self.stored))
        return self.trainer

    def fit(self, rules=RULES):
        return fit(self.trainer, self, rules, self)

    # What computes a step.

    def gradients(self, batch, step):
        self.cut("gradients")
        torch.manual_seed(step)
        loss = self.trainer.model(batch.frames).square().mean()
        self.trainer.scaler.scale(loss).backward()
        if step in self.poison:
            self.trainer.model[0].weight.grad[0, 0] = float("inf")
        self.cut("averages")
        return Loss(loss.item(), 0.0, 1.0)

    def clamp_(self):
        pass

    # The world outside of the loop.

    def batches(self, start, stop):
        for step in range(start, stop):
            self.cut("load")
            yield a_batch(step)

    def validate(self):
        self.cut("validate")
        return {"AUROC": float(self.trainer.model(a_batch(99).frames).detach().std())}

    def save(self, state, step):
        self.cut("save")
        self.stored, self.saves = copy.deepcopy(state), self.saves + 1

    def keep_best(self):
        self.best = copy.deepcopy(self.trainer.model.state_dict())
        return "sum"

    def log(self, row):
        self.rows.append(row)

    def deferred(self):
        return self.signals.deferred()

    def go(self, rules=RULES):
        done = self.make_trainer().progress.step
        self.rows = [row for row in self.rows if row["step"] <= done]
        return self.fit(rules)

    def go_until(self, step):
        def cut(name):
            if name == "load" and len(seen := [*self.loads, 1]) > step:
                raise KeyboardInterrupt
            self.loads = seen if name == "load" else self.loads

        self.loads, self.cut = [], cut
        self.go()

    def result(self):
        steady = ("step", "loss", "lr", "grad_norm", "scale", "skipped")
        return self.stored, self.best, [{name: row[name] for name in steady} for row in self.rows]


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


@pytest.fixture(scope="module")
def uninterrupted():
    world = World(scaled=True, poison=[7])
    assert world.go() == "all steps"
    return world.result()


@pytest.mark.parametrize("seed", range(20))
def test_stopped_at_random_places_it_ends_with_the_same_bits(uninterrupted, seed):
    """Weights, moments, scaler, progress, best weights and logged rows."""
    draw = random.Random(seed)

    def cut(name):
        if draw.random() < 0.06:
            raise KeyboardInterrupt(name)

    world, stops = World(scaled=True, poison=[7], cut=cut), 0
    while True:
        try:
            world.go()
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops
    assert same(world.result(), uninterrupted)


@pytest.mark.parametrize("seed", range(10))
def test_killed_without_a_word_it_goes_on_from_the_last_save_to_the_same_bits(uninterrupted, seed):
    draw, kept = random.Random(seed), None

    class Killed(BaseException):
        pass

    def cut(name):
        nonlocal kept
        if draw.random() < 0.05:
            kept = copy.deepcopy((world.stored, world.rows, world.best))
            raise Killed

    world = World(scaled=True, poison=[7], cut=cut)
    while True:
        try:
            world.go()
            break
        except Killed:
            world.stored, world.rows, world.best = kept
    assert same(world.result(), uninterrupted)


def test_at_most_one_step_is_lost_when_stopped():
    calls = []

    def cut(name):
        calls.append(name)
        if calls.count("gradients") == 11:
            raise KeyboardInterrupt

    world = World(cut=cut)
    with pytest.raises(KeyboardInterrupt):
        world.go()
    assert world.stored["progress"]["step"] == 10


@pytest.mark.parametrize("planted", ["scaler", "optimizer", "progress"])
def test_a_resume_that_forgets_a_part_of_the_state_would_be_found(uninterrupted, planted):
    def cut(name):
        if name == "gradients" and world.stored and world.stored["progress"]["step"] == 12 and not stops:
            stops.append(name)
            raise KeyboardInterrupt

    stops = []
    world = World(scaled=True, poison=[7], cut=cut)
    with pytest.raises(KeyboardInterrupt):
        world.go()
    fresh = World(scaled=True).make_trainer().state()
    world.stored[planted] = {**fresh[planted], **({"step": 12} if planted == "progress" else {})}
    world.go()
    assert not same(world.result(), uninterrupted)


def test_an_overflow_is_skipped_counted_and_moves_nothing_but_scale_and_schedule():
    world = World(scaled=True, poison=[0])
    trainer = world.make_trainer()
    before = copy.deepcopy(trainer.model.state_dict())
    world.fit(RULES._replace(total=1, validate_every=0))
    assert same(trainer.model.state_dict(), before)
    assert trainer.progress.skipped == 1
    assert trainer.scaler.get_scale() == 2.0**3
    assert world.rows[0]["grad_norm"] is None


def test_without_a_scaler_too_a_step_that_is_not_finite_changes_no_weight():
    world = World(poison=[0])
    trainer = world.make_trainer()
    before = copy.deepcopy(trainer.model.state_dict())
    world.fit(RULES._replace(total=1, validate_every=0))
    assert same(trainer.model.state_dict(), before)


def test_too_many_skips_in_a_row_end_the_run_and_leave_the_last_good_checkpoint():
    world = World(scaled=True, poison=range(6, 30))
    with pytest.raises(NonFiniteError, match=r"3 steps in a row up to step 9: loss .*, lr .*, loss scale 4, .*clip8-0"):
        world.go()
    good = World(scaled=True)
    with pytest.raises(KeyboardInterrupt):
        good.go_until(6)
    assert world.stored["progress"]["step"] == 8
    assert same(world.stored["model"], good.stored["model"])


@pytest.mark.parametrize("error", [DataError("broken", "a.mp4"), RuntimeError("a defect")], ids=repr)
def test_whatever_else_goes_wrong_the_finished_steps_are_saved(error):
    def cut(name):
        if name == "load" and world.rows and world.rows[-1]["step"] == 6:
            raise error

    world = World(cut=cut)
    with pytest.raises(type(error)):
        world.go()
    assert world.stored["progress"]["step"] == 6


def test_a_full_disk_ends_the_run_once():
    def cut(name):
        if name == "save":
            raise DiskError("cannot write", "x")

    world = World(cut=cut)
    with pytest.raises(DiskError):
        world.go()
    assert world.saves == 0


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: x"),
    ],
)
def test_a_shortage_of_memory_names_what_to_try(error):
    def cut(name):
        if name == "gradients":
            raise error

    with pytest.raises(MemoryShortage, match="micro_batch_size=1"):
        World(cut=cut).go()


def test_early_stopping_keeps_the_best_and_says_why():
    world = World()
    values = iter([0.5, 0.7, 0.6, 0.6, 0.9])
    trainer = world.make_trainer()
    world.validate = lambda: {"mAP@0.5": next(values)}
    reason = world.fit(RULES._replace(patience=2, monitor="mAP@0.5"))
    assert reason == "early: 2 validations without a better mAP@0.5"
    assert (trainer.progress.best, trainer.progress.best_step, trainer.progress.step) == (0.7, 5, 15)
    again = World()
    again.stored = world.stored
    assert again.go(RULES._replace(patience=2, monitor="mAP@0.5")) == reason


def test_an_undefined_number_is_never_the_best():
    world = World()
    trainer = world.make_trainer()
    world.validate = lambda: {"AUROC": None}
    world.fit()
    assert trainer.progress.best_step == -1
    assert world.best is None


def test_validation_sees_eval_mode_and_training_train_mode():
    modes = set()
    world = World(cut=lambda name: modes.add((name, world.trainer.model.training)))
    world.go()
    modes = {(name, is_training) for name, is_training in modes if name in ("validate", "gradients")}
    assert modes == {("validate", False), ("gradients", True)}


def test_a_signal_inside_a_held_body_is_raised_after_it():
    signals, done = Signals(), []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}

    def body():
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            with signals.deferred():
                os.kill(os.getpid(), signal.SIGTERM)
            done.append(True)

    signals.catch()
    try:
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            body()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert done
