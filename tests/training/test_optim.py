"""The optimizers against the released code's own numbers (tests/golden/README.md) and by hand."""

import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.models_factory import clips, texts, tiny_two_tower
from support.small_training import StepCalls

from xclip_module.interface import Batch
from xclip_module.models import load_checkpoint
from xclip_module.models.official import to_official
from xclip_module.models.parameters import freeze_, logit_scale, pretrained_names
from xclip_module.run.distributed import World
from xclip_module.training.grad_cache import StepMaker, backward
from xclip_module.training.optim import (
    BertAdam,
    bertadam_schedule,
    build_optimizer,
    clamp_logit_scale_,
    parameter_groups,
    set_lr,
    warmup_cosine,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "clip4clip"
# Folders of complete cases, larger than the repository carries; see golden/README.md.
FULL_XCLIP = Path(os.environ.get("XCLIP_GOLDEN", "nowhere"))
FULL_CLIP4CLIP = Path(os.environ.get("CLIP4CLIP_GOLDEN", "nowhere"))
TRAJECTORY = FULL_XCLIP / "train_traj_default_lr"
START = FULL_XCLIP / "seqtransf_varlen" / "model.safetensors"
pytestmark = pytest.mark.usefixtures("one_thread")
ALONE = World(0, 1, torch.device("cpu"))


def arrays(path):
    return {name: torch.from_numpy(np.asarray(value)) for name, value in np.load(path).items()}


def group(parameters, *, lr=1e-2, weight_decay=0.0):
    return {"params": list(parameters), "names": [], "lr": lr, "peak_lr": lr, "weight_decay": weight_decay}


def test_bertadam_equals_the_released_optimizer_over_twelve_steps():
    golden = arrays(GOLDEN / "bertadam_toy.npz")
    parameters = [torch.nn.Parameter(golden[f"init_{i}"].clone()) for i in range(3)]
    rates = [(1e-3, 0.2), (1e-2, 0.2), (1e-2, 0.0)]
    groups = [group([p], lr=lr, weight_decay=decay) for p, (lr, decay) in zip(parameters, rates, strict=True)]
    optimizer = BertAdam(groups)
    for step in range(12):
        set_lr(optimizer, bertadam_schedule(step, 20, 0.1))
        for i, parameter in enumerate(parameters):
            parameter.grad = golden[f"grad_{step}_{i}"].clone()
        optimizer.step()
        for i, parameter in enumerate(parameters):
            torch.testing.assert_close(parameter.detach(), golden[f"param_after_{step}_{i}"], rtol=0, atol=1e-7)
            assert torch.equal(parameter.grad, golden[f"grad_{step}_{i}"])
        set_lr(optimizer, bertadam_schedule(step + 1, 20, 0.1))
        found = [g["lr"] for g in optimizer.param_groups]
        assert found == pytest.approx(golden["get_lr_after_step"][step].tolist(), rel=1e-12)


def test_the_released_schedule_with_its_drop_after_the_warm_up():
    golden = json.loads((GOLDEN / "bertadam_schedules_warmup0.1.json").read_text())
    found = [bertadam_schedule(step, 40, 0.1) for step in range(41)]
    assert found == pytest.approx(golden["warmup_cosine"], abs=1e-12)
    assert found[0] == 0


def test_warmup_cosine_rises_from_one_share_to_the_peak_and_falls_to_almost_zero():
    factors = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert factors[:11] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0])
    assert factors[55] == pytest.approx(0.5)
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[99] == pytest.approx((1 + math.cos(math.pi * 89 / 90)) / 2)
    assert warmup_cosine(100, 100, 0.1) == 0


@pytest.mark.parametrize(("total", "warmup"), [(1, 0.0), (1, 1.0), (3, 1.0), (3, 0.0)])
def test_the_first_step_of_the_shortest_training_learns(total, warmup):
    assert warmup_cosine(0, total, warmup) > 0


def released_batch(part, rows):
    """A batch of matched pairs from arrays of the released shapes [B, 1, ...]."""
    own, frames = torch.eye(rows, dtype=torch.bool), part["video"][:, 0, :, 0]
    return Batch(
        frames=frames,
        # Released batches hold zero pictures in empty slots.
        shown=frames.flatten(2).any(-1),
        start=0,
        input_ids=part["input_ids"][:, 0],
        mask=part["mask"][:, 0],
        sentences=torch.arange(rows),
        positives=own,
        unknown=own & False,
        names=("",) * rows,
    )


def released_recipe(model, batches, *, total, lr, coefficient):
    """As main_xclip.py and main_task_retrieval.py train, by our parts; yields a row after each step."""
    groups = parameter_groups(
        model.named_parameters(),
        pretrained=pretrained_names(model),
        lr=lr,
        pretrained_lr_scale=coefficient,
        weight_decay=0.2,
        rule="bertadam",
    )
    optimizer = build_optimizer("bertadam", groups)

    for step, batch in enumerate(batches):
        set_lr(optimizer, bertadam_schedule(step, total, 0.1))
        options = {"loss": "infonce", "micro_batch_size": 2, "world": ALONE, "scale": lambda loss: loss, "seed": step}
        loss = backward(batch, StepCalls.of(model), **options).loss
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item()
        optimizer.step()
        optimizer.zero_grad()
        clamp_logit_scale_(logit_scale(model), 100)
        set_lr(optimizer, bertadam_schedule(step + 1, total, 0.1))
        yield loss, norm, sorted({g["lr"] for g in optimizer.param_groups})


@pytest.fixture
def clip4clip(tmp_path):
    """CLIP4Clip's tiny model with the temporal transformer, as released, with the lowest part frozen."""
    clip = {f"clip.{name}": tensor for name, tensor in arrays(GOLDEN / "clip_A.npz").items()}
    torch.save(clip | arrays(GOLDEN / "A_seqTransf_extra_state.npz"), tmp_path / "model.bin")
    model = load_checkpoint(tmp_path / "model.bin")
    freeze_(model, 0)
    return model


def test_groups_are_the_released_ones(clip4clip):
    golden = json.loads((GOLDEN / "A_seqTransf_train6.json").read_text())["group_names"]
    for parameter in clip4clip.parameters():
        parameter.requires_grad = True
    named, rates = dict(clip4clip.named_parameters()), {"lr": 1e-2, "pretrained_lr_scale": 0.1, "weight_decay": 0.2}
    groups = parameter_groups(named.items(), pretrained=pretrained_names(clip4clip), rule="bertadam", **rates)
    found = {(g["lr"], g["weight_decay"]): set(to_official({n: named[n] for n in g["names"]})) for g in groups}
    assert found == {(g["lr"], g["weight_decay"]): set(g["names"]) for g in golden}


def test_six_steps_equal_the_released_training(clip4clip):
    """Loss, gradient norm before clipping, learning rates and logit scale of every step, clips of 1 to 6 frames."""
    golden = json.loads((GOLDEN / "A_seqTransf_train6.json").read_text())
    inputs = arrays(GOLDEN / "inputs.npz")
    names = {"input_ids": "input_ids", "mask": "attention_mask", "video": "video"}
    batch = released_batch({ours: inputs[f"train_{theirs}"] for ours, theirs in names.items()}, 6)
    options = {"total": golden["t_total"], "lr": golden["lr"], "coefficient": golden["coef_lr"]}
    recipe = released_recipe(clip4clip, [batch] * 6, **options)
    for (loss, norm, rates), expected in zip(recipe, golden["steps"], strict=True):
        assert loss == pytest.approx(expected["loss"], abs=1e-5)
        assert norm == pytest.approx(expected["global_grad_norm_before_clip"], rel=2e-5)
        assert rates == pytest.approx(expected["distinct_lr_after"], rel=1e-12)
        assert clip4clip.logit_scale.item() == pytest.approx(expected["logit_scale"], abs=1e-5)
        check_parameters(clip4clip, expected["step"])


def check_parameters(model, step):
    file = FULL_CLIP4CLIP / "A_seqTransf_train6_params.npz"
    if not file.exists():
        return
    found = to_official(model.state_dict())
    for name, tensor in arrays(file).items():
        if name.startswith(f"step{step}::"):
            torch.testing.assert_close(found[name.split("::")[1]], tensor, rtol=0, atol=1e-5)


@pytest.mark.skipif(not START.exists(), reason="needs XCLIP_GOLDEN with the case that the trajectory starts from")
def test_two_epochs_equal_the_released_training():
    golden = json.loads((TRAJECTORY / "meta.json").read_text())
    inputs = load_file(TRAJECTORY / "inputs.safetensors")
    model = load_checkpoint(START)
    freeze_(model, 0)
    keys = {"input_ids": "input_ids", "mask": "input_mask", "video": "video"}
    batches = [
        released_batch({ours: inputs[f"step{number}.{theirs}"] for ours, theirs in keys.items()}, 4)
        for number in range(5)
    ]
    options = {"total": golden["t_total"], "lr": golden["lr"], "coefficient": golden["coef_lr"]}
    rows = list(released_recipe(model, batches * 2, **options))
    assert [loss for loss, _, _ in rows] == pytest.approx(golden["losses"], abs=1e-5)
    for (_, _, rates), expected in zip(rows, golden["lr_sets_after_step"], strict=True):
        assert rates == pytest.approx(expected, rel=1e-12)
    found = to_official(model.state_dict())
    for name, tensor in load_file(TRAJECTORY / "model_after.safetensors").items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-6, msg=name)


def small(seed=0):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 1))


def test_adamw_decays_matrices_only_and_bertadam_all_but_biases():
    rates = {"lr": 1.0, "pretrained_lr_scale": 0.1, "weight_decay": 0.2}
    decayed = {}
    for rule in ("adamw", "bertadam"):
        groups = parameter_groups(small().named_parameters(), pretrained={"0.weight", "0.bias"}, rule=rule, **rates)
        decayed[rule] = {name for g in groups if g["weight_decay"] for name in g["names"]}
        assert {name: g["peak_lr"] for g in groups for name in g["names"]} == {
            **{"0.weight": 0.1, "0.bias": 0.1},
            **{"1.weight": 1.0, "1.bias": 1.0, "2.weight": 1.0, "2.bias": 1.0},
        }
    assert decayed == {"adamw": {"0.weight", "2.weight"}, "bertadam": {"0.weight", "1.weight", "2.weight"}}


def test_frozen_parameters_are_in_no_group():
    model = small()
    model[0].requires_grad_(False)
    rates = {"lr": 1.0, "pretrained_lr_scale": 0.1, "weight_decay": 0.2}
    groups = parameter_groups(model.named_parameters(), pretrained={"0.weight", "0.bias"}, rule="adamw", **rates)
    assert [(g["title"], g["names"]) for g in groups] == [
        ("new, no decay", ["1.weight", "1.bias", "2.bias"]),
        ("new, decay", ["2.weight"]),
    ]


def test_adamw_is_torchs_with_clips_constants():
    optimizer = build_optimizer("adamw", [group(small().parameters())])
    assert type(optimizer) is torch.optim.AdamW
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.9, 0.98), 1e-6)


def test_learning_rates_are_shares_of_each_groups_peak():
    optimizer = build_optimizer("bertadam", [group(small().parameters(), lr=lr) for lr in (1e-4, 1e-5)])
    for factor in (0.5, 0.25):
        set_lr(optimizer, factor)
        assert [g["lr"] for g in optimizer.param_groups] == [1e-4 * factor, 1e-5 * factor]


@pytest.mark.parametrize("name", ["adamw", "bertadam"])
def test_an_optimizer_goes_on_bit_by_bit_from_a_file_that_runs_no_code(name):
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))

    def train(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()

    def start(seed):
        model = small(seed)
        rates = {"lr": 1e-2, "pretrained_lr_scale": 0.1, "weight_decay": 0.2}
        groups = parameter_groups(model.named_parameters(), pretrained={"0.weight"}, rule=name, **rates)
        return model, build_optimizer(name, groups)

    straight, file = start(0), io.BytesIO()
    train(*straight, 3)
    torch.save([part.state_dict() for part in straight], file)
    train(*straight, 2)
    file.seek(0)
    resumed = start(5)
    for part, state in zip(resumed, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    train(*resumed, 2)
    for expected, found in zip(straight[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["adamw", "bertadam"])
def test_a_step_with_an_infinite_gradient_is_skipped_and_the_scale_halved(name):
    """The real step: towers in bfloat16, one gradient made infinite as an overflow of fp16 would."""
    model = tiny_two_tower(header="transformer", header_layers=1).train()
    rates = {"lr": 1e-3, "pretrained_lr_scale": 0.1, "weight_decay": 0.1}
    groups = parameter_groups(model.named_parameters(), pretrained=pretrained_names(model), rule=name, **rates)
    optimizer, scaler = build_optimizer(name, groups), torch.amp.GradScaler("cpu", init_scale=1024)
    maker = StepMaker(
        model=model,
        to_pixels=lambda frames: frames,
        precision="bf16",
        loss="multi_positive",
        micro_batch_size=2,
        seed=0,
        scaler=scaler,
        logit_scale=logit_scale(model),
        max_logit_scale=100,
        world=ALONE,
    )
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    norms = []
    for is_infinite in (True, False):
        maker.gradients(matched_batch(4), 0)
        if is_infinite:
            model.logit_scale.grad.fill_(torch.inf)
        scaler.unscale_(optimizer)
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        has_moved = [not torch.equal(p, before[n]) for n, p in model.named_parameters()]
        assert not any(has_moved) if is_infinite else all(has_moved)
        assert scaler.get_scale() == 512
    assert not math.isfinite(norms[0])
    assert 0 < norms[1] < 100


def matched_batch(rows):
    (ids, mask), (frames, _) = texts(rows, 10), clips(rows, 5)
    return released_batch({"input_ids": ids[:, None], "mask": mask[:, None], "video": frames[:, None, :, None]}, rows)


def test_the_logit_scale_is_kept_at_its_most_and_left_alone_below():
    for start, expected in ((4.7, math.log(100)), (2.6, 2.6)):
        parameter = torch.nn.Parameter(torch.tensor(start))
        clamp_logit_scale_(parameter, 100)
        assert parameter.item() == pytest.approx(expected, abs=1e-6)
        assert parameter.requires_grad
