"""What computes a step: against `backward` by hand, in which precision what is computed, and what is kept in bounds."""

import math

import pytest
import torch
from support.models_factory import texts, tiny_two_tower
from support.small_training import StepCalls

from xclip_module.interface import Batch
from xclip_module.run.distributed import World
from xclip_module.training.grad_cache import StepMaker, backward
from xclip_module.training.seeds import seed_of

pytestmark = pytest.mark.usefixtures("one_thread")
ALONE = World(0, 1, torch.device("cpu"))


def to_pixels(frames):
    return frames.float() / 127.5 - 1


def make_batch(clips=5, sentences=4):
    draw = torch.Generator().manual_seed(0)
    ids, mask = texts(sentences, 10)
    own = torch.arange(clips) % sentences
    positives = own[None] == torch.arange(sentences)[:, None]
    return Batch(
        frames=torch.randint(256, (clips, 4, 3, 32, 32), generator=draw, dtype=torch.uint8),
        shown=torch.ones(clips, 4, dtype=torch.bool),
        start=0,
        input_ids=ids,
        mask=mask,
        sentences=own,
        positives=positives,
        unknown=torch.zeros_like(positives),
        names=("",) * clips,
    )


@pytest.fixture
def model():
    return tiny_two_tower(header="transformer", header_layers=1, frames=4).train()


def maker(model, **changes):
    settings = {
        "model": model,
        "to_pixels": to_pixels,
        "precision": "fp32",
        "loss": "multi_positive",
        "micro_batch_size": 2,
        "seed": 3,
        "scaler": torch.amp.GradScaler("cpu", enabled=False),
        "logit_scale": model.logit_scale,
        "max_logit_scale": 100.0,
        "world": ALONE,
    }
    return StepMaker(**{**settings, **changes})


def taken(model):
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return gradients


def test_a_step_is_backward_with_the_seed_of_its_number(model):
    batch = make_batch()
    options = {"loss": "infonce", "micro_batch_size": 2, "world": ALONE, "scale": lambda loss: loss * 8}
    expected = backward(batch, StepCalls.of(model, to_pixels=to_pixels), seed=seed_of(3, 11, bits=63), **options)
    gradients = taken(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    assert maker(model, loss="infonce", scaler=scaler).gradients(batch, 11) == expected
    again = taken(model)
    assert gradients.keys() == again.keys()
    assert all(torch.equal(again[name], gradient) for name, gradient in gradients.items())


def test_towers_compute_in_the_chosen_precision_and_similarity_and_gradients_in_float32(model):
    seen = {}

    def watch(name):
        def hook(part, inputs, output):
            seen.setdefault(name, set()).add(output.dtype)

        return hook

    for name, part in model.named_modules():
        if name.endswith("mlp.fc1"):
            part.register_forward_hook(watch(name.split(".")[0]))
    original = model.similarity
    model.similarity = lambda *sides: seen.setdefault("similarity", original(*sides))
    maker(model, precision="bf16").gradients(make_batch(), 0)
    assert seen.pop("similarity").dtype == torch.float32
    assert {"frame_encoder", "text_encoder"} <= set(seen)
    assert all(seen[name] == {torch.bfloat16} for name in ("frame_encoder", "text_encoder"))
    assert {gradient.dtype for gradient in taken(model).values()} == {torch.float32}


def test_the_logit_scale_comes_back_under_its_most(model):
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    maker(model, max_logit_scale=50.0).clamp_()
    assert model.logit_scale.item() == pytest.approx(math.log(50))
