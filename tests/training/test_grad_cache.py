"""One step's gradients in micro-batches and over processes. In float64, so that only rounding separates equals."""

import datetime
import weakref

import pytest
import torch
from support.models_factory import texts, tiny_ms_xclip, tiny_two_tower
from support.small_training import StepCalls
from torch.multiprocessing import spawn
from transformers import XCLIPModel
from transformers.models.clip.modeling_clip import CLIPAttention

from xclip_module.interface import Batch, Embeddings, Picture
from xclip_module.models.ms_xclip import MicrosoftXClip
from xclip_module.run.collectives import average_gradients
from xclip_module.run.distributed import World, share
from xclip_module.training.grad_cache import backward
from xclip_module.training.objectives import LOSSES
from xclip_module.training.optim import build_optimizer, parameter_groups, set_lr
from xclip_module.training.seeds import seed_of

ALONE = World(0, 1, torch.device("cpu"))
FAMILIES = ("xclip", "clip4clip", "tight", "ms-xclip")
SEED = 7
_float = torch.Tensor.float


def keep_double(tensor):
    """Instead of Tensor.float, with which the models cast to float32."""
    return tensor if tensor.dtype == torch.float64 else _float(tensor)


@pytest.fixture(autouse=True)
def double(monkeypatch, one_thread):
    monkeypatch.setattr(torch.Tensor, "float", keep_double)


def build(family):
    """A tiny model in train mode with dropout on, float64."""
    if family == "ms-xclip":
        config = tiny_ms_xclip().config
        config.vision_config.drop_path_rate = config.vision_config.attention_dropout = 0.2
        config.text_config.attention_dropout = config.prompt_attention_dropout = 0.2
        torch.manual_seed(3)
        model = MicrosoftXClip(XCLIPModel(config), Picture(32, (0.5,) * 3, (0.5,) * 3))
    else:
        header = {"xclip": "transformer", "clip4clip": "mean", "tight": "tight"}[family]
        layers = 0 if family == "clip4clip" else 1
        name = "xclip" if family == "xclip" else "clip4clip"
        model = tiny_two_tower(family=name, header=header, header_layers=layers, frames=4)
        for part in model.modules():
            if isinstance(part, CLIPAttention):
                part.dropout = 0.2
    return model.double().train()


def make_batch(clips, sentences, *, seed=0, rank=0, size=1, is_ragged=False):
    """Random pixels and ids; some sentences hold in other clips too, and some pairs nobody knows."""
    generator = torch.Generator().manual_seed(seed)
    own = torch.cat([torch.arange(sentences), torch.randint(sentences, (clips - sentences,), generator=generator)])
    positives = torch.rand(sentences, clips, generator=generator) < 0.2
    positives[own, torch.arange(clips)] = True
    frames = torch.randint(256, (clips, 4, 3, 32, 32), generator=generator).to(torch.uint8)
    lengths = torch.randint(1, 5, (clips, 1), generator=generator) if is_ragged else torch.full((clips, 1), 4)
    rows = share(clips, rank, size)
    return Batch(
        frames=frames[rows.start : rows.stop],
        shown=(torch.arange(4) < lengths)[rows.start : rows.stop],
        start=rows.start,
        **dict(zip(("input_ids", "mask"), texts(sentences, 10, seed=seed), strict=True)),
        sentences=own,
        positives=positives,
        unknown=(torch.rand(sentences, clips, generator=generator) < 0.1) & ~positives,
        names=tuple(map(str, range(clips))),
    )


def to_pixels(frames):
    return frames.double() / 127.5 - 1


def calls_of(model, **changes):
    return StepCalls.of(model, to_pixels=to_pixels)._replace(**changes)


def step(model, batch, *, micro, calls=None, world=ALONE, scale=lambda loss: loss, loss="multi_positive"):
    return backward(
        batch,
        calls or calls_of(model),
        loss=loss,
        micro_batch_size=micro,
        world=world,
        scale=scale,
        seed=SEED,
    )


def whole(model, batch, *, micro, loss="multi_positive"):
    """The slow obvious way: every chunk's graph is kept, with the same dropout, and autograd does the rest."""

    def embed(kind, encode, *rows):
        parts = []
        for number, chunk in enumerate(zip(*(x.split(micro) for x in rows), strict=True)):
            torch.manual_seed(seed_of(SEED, 0, kind, number))
            parts.append(encode(*chunk))
        return Embeddings(*map(torch.cat, zip(*parts, strict=True)))

    pixels = to_pixels(batch.frames) * batch.shown[:, :, None, None, None]
    text = embed("text", model.encode_text, batch.input_ids, batch.mask)
    video = embed("clip", model.encode_video, pixels, batch.shown)
    torch.manual_seed(seed_of(SEED, 0, "head", 0))
    value = LOSSES[loss](model.similarity(text, video), batch.sentences, batch.positives, batch.unknown)
    value.backward()
    return value.item()


def taken(model):
    """Gradients by name, taken away from the model."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return gradients


def deviation(found, expected):
    """Largest relative difference of a gradient; one that is zero but for rounding is measured by the largest."""
    assert set(found) == set(expected)
    least = 1e-6 * max(gradient.norm() for gradient in expected.values())
    return max(float((found[n] - expected[n]).norm() / max(expected[n].norm(), least)) for n in expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_micro_batches_equal_the_whole_batch_on_every_parameter_with_dropout_on(family):
    """Towers, temporal header, head matrices and logit scale; 5 sentences and 7 clips by 3 leave a last chunk of 1."""
    model, batch = build(family), make_batch(7, 5)
    value = whole(model, batch, micro=3)
    expected = taken(model)
    found = step(model, batch, micro=3)
    assert found.loss == pytest.approx(value, rel=1e-12)
    assert deviation(taken(model), expected) < 1e-9
    without = {n for n, _ in model.named_parameters()} - set(expected)
    # CLIP's and transformers' own parts that no output depends on.
    assert without <= {"logit_scale"} if family == "tight" else not without


@pytest.mark.parametrize("family", ["xclip", "clip4clip", "tight"])
def test_clips_of_fewer_frames_than_slots_have_exact_gradients_and_what_lies_in_empty_slots_is_never_seen(family):
    model, batch = build(family), make_batch(7, 5, is_ragged=True)
    assert not batch.shown.all(dim=1).all()
    value = whole(model, batch, micro=3)
    expected = taken(model)
    assert step(model, batch, micro=3).loss == pytest.approx(value, rel=1e-12)
    assert deviation(taken(model), expected) < 1e-9
    litter = torch.where(batch.shown[:, :, None, None, None], batch.frames, 255 - batch.frames)
    assert step(model, batch._replace(frames=litter), micro=3).loss == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_micro_batches_equal_the_whole_batch_for_every_loss(loss):
    model, batch = build("xclip"), make_batch(7, 5)
    whole(model, batch, micro=2, loss=loss)
    expected = taken(model)
    step(model, batch, micro=2, loss=loss)
    assert deviation(taken(model), expected) < 1e-9


def test_summing_the_losses_of_micro_batches_would_be_another_gradient():
    """Why all this: plain accumulation has fewer negatives."""
    model, batch = build("xclip").eval(), make_batch(6, 6)
    whole(model, batch, micro=6)
    expected = taken(model)
    for rows in (slice(0, 3), slice(3, 6)):
        part = batch._replace(
            frames=batch.frames[rows],
            shown=batch.shown[rows],
            input_ids=batch.input_ids[rows],
            mask=batch.mask[rows],
            sentences=torch.arange(3),
            positives=batch.positives[rows, rows],
            unknown=batch.unknown[rows, rows],
        )
        whole(model, part, micro=3)
    plain = {name: gradient / 2 for name, gradient in taken(model).items()}
    assert min(deviation({n: plain[n]}, {n: expected[n]}) for n in ("logit_scale", "head.local_mat_weight")) > 0.01
    assert deviation(plain, expected) > 0.1


@pytest.mark.parametrize(("micro", "forwards"), [(0, 1), (7, 1), (3, 2)])
def test_one_forward_per_sample_when_nothing_is_accumulated_else_two(micro, forwards):
    model, seen = build("xclip"), {"texts": 0, "clips": 0, "chunks": 0}

    def encode_text(ids, mask):
        seen["texts"] += len(ids)
        seen["chunks"] += 1
        return model.encode_text(ids, mask)

    def encode_video(frames, mask):
        seen["clips"] += len(frames)
        seen["chunks"] += 1
        return model.encode_video(frames, mask)

    calls = calls_of(model, encode_text=encode_text, encode_video=encode_video)
    step(model, make_batch(7, 5), micro=micro, calls=calls)
    chunks = 2 if micro in (0, 7) else 5
    assert seen == {"texts": 5 * forwards, "clips": 7 * forwards, "chunks": chunks * forwards}


def test_pixels_of_one_chunk_live_at_a_time():
    model, alive = build("ms-xclip"), []

    def one_at_a_time(frames):
        assert not [pixels for pixels in alive if pixels() is not None]
        pixels = to_pixels(frames)
        alive.append(weakref.ref(pixels))
        return pixels

    step(model, make_batch(7, 5), micro=2, calls=calls_of(model, to_pixels=one_at_a_time))
    assert len(alive) == 8


class Held:
    """A tensor that autograd keeps for the backward pass; counts the bytes of all that live, and their peak."""

    living = peak = 0

    def __init__(self, tensor):
        self.tensor = tensor
        Held.living += tensor.nbytes
        Held.peak = max(Held.peak, Held.living)

    def __del__(self):
        Held.living -= self.tensor.nbytes


def test_the_graph_of_one_chunk_lives_at_a_time():
    model, batch, peaks = build("clip4clip"), make_batch(8, 8), []
    for micro in (1, 8):
        Held.peak = 0
        with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
            step(model, batch, micro=micro)
        assert Held.living == 0
        peaks.append(Held.peak)
    assert peaks[0] < peaks[1] / 4


def test_the_loss_scale_scales_every_gradient():
    model, batch = build("xclip"), make_batch(5, 4)
    step(model, batch, micro=2)
    expected = taken(model)
    found = step(model, batch, micro=2, scale=lambda loss: loss * 1024)
    assert deviation({n: g / 1024 for n, g in taken(model).items()}, expected) < 1e-12
    assert found.loss < 20


def test_an_autocast_around_the_step_does_not_lose_the_encoders_gradients(monkeypatch):
    """Autocast remembers a weight's cast; older versions gave one made without graph to the second forward."""
    monkeypatch.setattr(torch.Tensor, "float", _float)
    model, batch = build("clip4clip").float().eval(), make_batch(6, 5)
    calls = calls_of(model, to_pixels=lambda frames: to_pixels(frames).float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step(model, batch, micro=6, calls=calls)
        expected = taken(model)
        step(model, batch, micro=2, calls=calls)
    assert deviation(taken(model), expected) < 0.1


# Distance of the whole gradients, in roundings of the kind that the towers compute with: of 24 bits and of 8.
@pytest.mark.parametrize(("chosen", "rounding"), [("fp32", 2**-24), ("bf16", 2**-9)])
@pytest.mark.parametrize("family", ["xclip", "clip4clip"])
def test_micro_batches_are_the_whole_batch_up_to_rounding_in_every_precision(monkeypatch, family, chosen, rounding):
    monkeypatch.setattr(torch.Tensor, "float", _float)
    model, batch = build(family).float().eval(), make_batch(7, 5)

    def cast(encode):
        with_autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=chosen == "bf16")
        return with_autocast(encode)

    calls = StepCalls.of(model, to_pixels=lambda frames: frames.float() / 127.5 - 1)
    calls = calls._replace(encode_text=cast(model.encode_text), encode_video=cast(model.encode_video))
    gradients = []
    for micro in (7, 3):
        step(model, batch, micro=micro, calls=calls)
        gradients.append(torch.cat([gradient.flatten() for gradient in taken(model).values()]))
    whole, parts = gradients
    assert (parts - whole).norm() < 16 * rounding * whole.norm()


def test_a_signal_in_the_first_pass_leaves_no_gradient():
    model, chunks = build("clip4clip"), []

    def encode_text(ids, mask):
        chunks.append(None)
        if len(chunks) == 3:
            raise KeyboardInterrupt
        return model.encode_text(ids, mask)

    with pytest.raises(KeyboardInterrupt):
        step(model, make_batch(7, 5), micro=2, calls=calls_of(model, encode_text=encode_text))
    assert not taken(model)


def test_every_chunk_of_every_process_draws_dropout_of_its_own():
    keys = [(s, r, k, n) for s in range(3) for r in range(3) for k in ("text", "clip", "head") for n in range(12)]
    assert len({seed_of(*key) for key in keys}) == len(keys)


def train(rank, size, family):
    """Five steps with batches that leave a process with fewer or no clips or sentences; the trained weights."""
    model = build(family).eval()
    world = World(rank, size, torch.device("cpu"))
    rates = {"lr": 1e-3, "pretrained_lr_scale": 0.5, "weight_decay": 0.1}
    name = "bertadam" if family == "ms-xclip" else "adamw"
    optimizer = build_optimizer(
        name, parameter_groups(model.named_parameters(), pretrained={"logit_scale"}, rule=name, **rates)
    )
    for number, (clips, sentences) in enumerate([(6, 4), (5, 5), (1, 1), (5, 2), (3, 1)]):
        set_lr(optimizer, 1 - 0.1 * number)
        # ms-xclip takes whole clips only.
        is_ragged = family == "xclip" and number % 2 == 0
        batch = make_batch(clips, sentences, seed=number, rank=rank, size=size, is_ragged=is_ragged)
        step(model, batch, micro=2, world=world)
        average_gradients(model.parameters(), world)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def train_as_rank(rank, store):
    torch.set_num_threads(1)
    torch.Tensor.float = keep_double
    patience = datetime.timedelta(seconds=120)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=patience
    )
    try:
        return {family: train(rank, 2, family) for family in ("xclip", "ms-xclip")}
    finally:
        torch.distributed.destroy_process_group()


def train_as_other(number, store, file):
    torch.save(train_as_rank(1 + number, store), file)


def test_two_processes_train_as_one_whatever_their_shares(tmp_path):
    """5 clips are 3 and 2, 1 clip leaves the second process without clip and sentence."""
    other = spawn(train_as_other, (tmp_path / "store", tmp_path / "other.pt"), nprocs=1, join=False)
    start = {family: build(family).state_dict() for family in ("xclip", "ms-xclip")}
    alone = {family: train(0, 1, family) for family in start}
    first = train_as_rank(0, tmp_path / "store")
    other.join()
    second = torch.load(tmp_path / "other.pt", weights_only=True)
    for family, expected in alone.items():
        for name, tensor in expected.items():
            torch.testing.assert_close(first[family][name], tensor, rtol=0, atol=1e-9, msg=f"{family} {name}")
            assert torch.equal(first[family][name], second[family][name]), name
        assert max((expected[name] - start[family][name]).abs().max() for name in expected) > 1e-3
