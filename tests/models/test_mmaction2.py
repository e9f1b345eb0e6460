"""MMAction2's CLIP4Clip: its own numbers (tests/golden/README.md) reproduced, its checkpoints read."""

import argparse
import collections
import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from support.models_factory import TINY, clips, texts, tiny_two_tower
from torch.nn.functional import cross_entropy

from xclip_module.errors import WeightsError
from xclip_module.models import load_checkpoint, load_untrained, save_model
from xclip_module.models.official import to_official
from xclip_module.models.parameters import freeze_, pretrained_names
from xclip_module.models.similarity import normalise
from xclip_module.models.temporal import TransformerAdapter
from xclip_module.models.two_tower import TwoTower
from xclip_module.training.optim import SCHEDULES, build_optimizer, parameter_groups

TREE = Path(__file__).parents[1] / "golden"
# A folder of complete cases, larger than the repository carries; see golden/README.md.
GOLDEN = Path(os.environ.get("CLIP4CLIP_GOLDEN", TREE / "mmaction2"))
CASES = [case for case in ("mean", "transformer") if (GOLDEN / f"mm_{case}_out.npz").exists()]
ADAPTER_CONFIG = "model = dict(adapter=dict(transformer_heads=4, transformer_layers=2, type='TransformerAdapter'))"
pytestmark = pytest.mark.usefixtures("one_thread")


def arrays(path):
    return {name: torch.from_numpy(np.asarray(value)) for name, value in np.load(path).items()}


def write_checkpoint(path, state, config="", **more):
    torch.save({"meta": {"mmengine_version": "0.10.7", "epoch": 5, "cfg": config}, "state_dict": state, **more}, path)
    return path


@pytest.fixture
def released(tmp_path):
    """MMAction2's tiny model of a case as MMEngine saves it, loaded."""

    def load(case):
        state = {f"clip.{name}": tensor.float() for name, tensor in arrays(TREE / "clip4clip" / "clip_A.npz").items()}
        if case == "transformer":
            state |= arrays(GOLDEN / "mm_transformer_adapter_state.npz")
        return load_checkpoint(write_checkpoint(tmp_path / "epoch_5.pth", state, ADAPTER_CONFIG))

    return load


def embed(model):
    inputs = arrays(GOLDEN / "mm_inputs.npz")
    mean, std = (torch.tensor(colours)[:, None, None] for colours in (model.picture.mean, model.picture.std))
    frames = (inputs["imgs"] / 255 - mean) / std
    text = model.encode_text(inputs["text"].long(), inputs["text"] > 0)
    return text, model.encode_video(frames, torch.ones(frames.shape[:2]))


def losses(logits):
    """Its two logged terms: video to text, text to video."""
    rows = torch.arange(len(logits))
    return cross_entropy(logits.T, rows) / 2, cross_entropy(logits, rows) / 2


@pytest.mark.parametrize("case", CASES)
def test_features_and_scores_equal_mmaction2(released, case):
    model, expected = released(case), arrays(GOLDEN / f"mm_{case}_out.npz")
    assert (model.family, model.spec.header, model.spec.pooling) == ("clip4clip", case, "mmaction2")
    with torch.no_grad():
        text, video = embed(model)
        scores = model.similarity(text, video)
    torch.testing.assert_close(text.pooled, expected["text_features_raw"], rtol=0, atol=2e-6)
    torch.testing.assert_close(video.pooled, normalise(expected["video_features_raw"]), rtol=0, atol=2e-6)
    cosine = scores / model.logit_scale.exp()
    torch.testing.assert_close(cosine, expected["cosine_text_x_video"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_training_equals_mmactions2s(released, case):
    """Both losses, every gradient's norm, some gradients, what is frozen and decayed, and one step of its AdamW."""
    model, expected = released(case), arrays(GOLDEN / f"mm_{case}_out.npz")
    summary = json.loads((GOLDEN / f"mm_{case}.json").read_text())
    named = dict(model.named_parameters())

    def official(names):
        return set(to_official({name: named[name] for name in names}))

    assert set(to_official(model.state_dict())) == set(summary["state_dict_keys"])
    assert official(freeze_(model, 0)) == set(summary["frozen_names_frozen_layers0"])
    rates = {"lr": 1e-2, "pretrained_lr_scale": 1.0, "weight_decay": 0.05}
    groups = parameter_groups(named.items(), pretrained=pretrained_names(model), rule="mmaction2", **rates)
    found = {(name, group["weight_decay"]) for group in groups for name in official(group["names"])}
    assert found == {(group["names"][0], group["weight_decay"]) for group in summary["optimizer_groups"]}

    v2t, t2v = losses(model.similarity(*embed(model)))
    golden = summary["losses"]
    assert (v2t.item(), t2v.item()) == pytest.approx((golden["sim_loss_v2t"], golden["sim_loss_t2v"]), abs=2e-6)
    (v2t + t2v).backward()
    gradients = to_official({n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named.items()})
    for name, norm in summary["grad_norms"].items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=5e-6), name
    build_optimizer("mmaction2", groups).step()
    trained = to_official(model.state_dict())
    for key, value in expected.items():
        kind, _, name = key.rpartition("::")
        if kind == "grad":
            assert (gradients[name] - value).norm() < 5e-6 * value.norm(), name
        elif kind == "after_adamw":
            # Adam's first step is the gradient's sign: rounding decides it where a softmax feels no gradient, for keys.
            sure = gradients[name].abs() > 1e-6
            assert sure.double().mean() > 0.6, name
            torch.testing.assert_close(trained[name][sure], value[sure], rtol=0, atol=2e-5)
    with torch.no_grad():
        after = sum(losses(model.similarity(*embed(model)))).item()
    assert after == pytest.approx(summary["loss_after_1_adamw_step_lr1e-2"], abs=1e-5)


@pytest.mark.parametrize("layers", [-1, 0, 1, 2])
def test_frozen_are_mmaction2s(layers):
    model = tiny_two_tower(family="clip4clip", pooling="mmaction2")
    named = dict(model.named_parameters())
    frozen = set(to_official({name: named[name] for name in freeze_(model, layers)}))
    assert frozen == set(json.loads((GOLDEN / "mm_frozen_parameters.json").read_text())[str(layers)])


def test_the_learning_rate_is_mmaction2s_at_every_step():
    """Five epochs of 20 steps, all of them, and of 1407, where half an epoch ends inside a step."""
    golden = json.loads((GOLDEN / "mm_lr_schedule.json").read_text())
    short, long = golden["epoch_length->lr_used_at_iteration"].values()
    for total, steps, rates in ((100, range(100), short), (7035, long["iter"], long["lr"])):
        found = [golden["base_lr"] * SCHEDULES["mmaction2"](step, total, 0.1) for step in steps]
        assert found == pytest.approx(rates, rel=1e-12)


@pytest.mark.parametrize("warmup", [0.0, 1 / 3, 1.0])
@pytest.mark.parametrize("total", [1, 3])
def test_its_shortest_trainings_learn_from_the_first_step_on(total, warmup):
    factors = [SCHEDULES["mmaction2"](step, total, warmup) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)


def test_its_optimizer_is_torchs_adamw_as_it_comes():
    optimizer = build_optimizer("mmaction2", [{"params": [torch.nn.Parameter(torch.ones(2))]}])
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.9, 0.999), 1e-8)


def tiny_adapter(**changes):
    return tiny_two_tower(
        family="clip4clip", header="transformer", header_layers=2, pooling="mmaction2", header_heads=4, **changes
    )


def test_the_adapter_equals_one_of_torchs_own_attention():
    """Pre-norm blocks of four heads by torch.nn.functional, from the tensors by their released names."""
    model = tiny_adapter()
    state = to_official(model.state_dict())
    frames, mask = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(0)), torch.ones(3, 5).bool()
    states = frames + state["adapter.positional_embedding"]
    for number in range(2):
        block = {
            name.split(f"resblocks.{number}.")[1]: tensor
            for name, tensor in state.items()
            if name.startswith(f"adapter.transformer.resblocks.{number}.")
        }
        attention = torch.nn.MultiheadAttention(64, 4, batch_first=True)
        attention.load_state_dict({n.removeprefix("attn."): t for n, t in block.items() if n.startswith("attn.")})
        normed = torch.nn.functional.layer_norm(states, (64,), block["ln_1.weight"], block["ln_1.bias"], 1e-5)
        states = states + attention(normed, normed, normed, need_weights=False)[0]
        normed = torch.nn.functional.layer_norm(states, (64,), block["ln_2.weight"], block["ln_2.bias"], 1e-5)
        hidden = normed @ block["mlp.c_fc.weight"].T + block["mlp.c_fc.bias"]
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        states = states + hidden @ block["mlp.c_proj.weight"].T + block["mlp.c_proj.bias"]
    torch.testing.assert_close(model.temporal(frames, mask), states + frames, rtol=0, atol=2e-5)


def test_the_adapter_starts_as_mmaction2_draws_it():
    torch.manual_seed(0)
    adapter = TransformerAdapter(128, layers=3, frames=50, heads=4)
    state = to_official({f"temporal.{name}": tensor for name, tensor in adapter.state_dict().items()})
    deep = {name.split("resblocks.2.")[-1]: tensor for name, tensor in state.items()}
    for name, deviation in {
        "adapter.positional_embedding": 0.01,
        "attn.in_proj_weight": 128**-0.5,
        "attn.out_proj.weight": 128**-0.5 * 6**-0.5,
        "mlp.c_fc.weight": 256**-0.5,
        "mlp.c_proj.weight": 128**-0.5 * 6**-0.5,
    }.items():
        assert deep[name].std().item() == pytest.approx(deviation, rel=0.05), name
    assert not deep["attn.in_proj_bias"].any()


def test_raw_frames_are_averaged_without_empty_slots():
    """So that a long frame weighs more, which CLIP4Clip's pooling of unit frames prevents."""
    features = torch.tensor([[[3.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    model = TwoTower(TINY._replace(family="clip4clip", pooling="mmaction2"))
    torch.testing.assert_close(model.embed_clips(features, mask).pooled, normalise(torch.tensor([[3.0, 1.0]])))
    unit = TwoTower(TINY._replace(family="clip4clip")).embed_clips(features, mask).pooled
    torch.testing.assert_close(unit, normalise(torch.tensor([[1.0, 1.0]])))
    assert "raw frames" in model.protocol


def test_the_adapter_takes_clips_of_its_own_length_only():
    model = tiny_adapter()
    assert model.clip_frames == 5
    with pytest.raises(ValueError, match="clips of 4 frame slots, this adapter is for 5"):
        model.encode_video(*clips(2, 4))


@pytest.fixture
def message_hub(monkeypatch):
    """MMEngine's log as it stands in a checkpoint: instances of its class, NumPy arrays and bound methods by name."""

    class HistoryBuffer:
        def __init__(self):
            self.__dict__ = {"_log_history": np.array([1.5]), "max_length": 10, "last": np.float64(2.5)}

        def mean(self):
            raise AssertionError

        def __getstate__(self):
            return {**self.__dict__, "statistics_methods": {"mean": HistoryBuffer.mean}}

        def __setstate__(self, state):
            raise AssertionError("its code was run")

    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    HistoryBuffer.mean.__qualname__ = "HistoryBuffer.mean"
    HistoryBuffer.mean.__module__ = module.__name__
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module if name == module.__name__ else types.ModuleType(name))
    scalars = collections.OrderedDict({"train/loss": HistoryBuffer()})
    return {"log_scalars": scalars, "runtime_info": {"iter": 5}, "resumed_keys": {"train/loss": True}}


def test_a_checkpoint_with_mmengines_log_is_read_and_its_log_left_alone(tmp_path, message_hub):
    model = tiny_two_tower(family="clip4clip", pooling="mmaction2")
    path = write_checkpoint(tmp_path / "epoch_5.pth", to_official(model.state_dict()), message_hub=message_hub)
    with pytest.raises(Exception, match="HistoryBuffer"):
        torch.load(path, weights_only=True)
    loaded = load_checkpoint(path)
    assert (loaded.spec.pooling, loaded.text_slots, loaded.clip_frames) == ("mmaction2", TINY.context, 0)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_what_else_torch_refuses_is_one_line_that_names_it(tmp_path):
    state = to_official(tiny_two_tower(family="clip4clip").state_dict())
    path = write_checkpoint(tmp_path / "epoch_5.pth", state, arguments=argparse.Namespace(lr=1))
    with pytest.raises(WeightsError, match=r"asks for argparse.Namespace.*nothing in it was run; try: ") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


def test_a_mean_header_without_mmengines_meta_is_clip4clips_unless_named(tmp_path):
    """No tensor tells one from the other."""
    torch.save(to_official(tiny_two_tower(family="clip4clip").state_dict()), tmp_path / "model.bin")
    assert load_checkpoint(tmp_path / "model.bin").spec.pooling == "clip4clip"
    assert load_checkpoint(tmp_path / "model.bin", pooling="mmaction2").spec.pooling == "mmaction2"


def test_an_adapter_without_its_heads_is_refused_not_guessed(tmp_path):
    state = to_official(tiny_adapter().state_dict())
    torch.save(state, tmp_path / "model.bin")
    with pytest.raises(WeightsError, match=r"no tensor tells the heads.*transformer_heads"):
        load_checkpoint(tmp_path / "model.bin")
    loaded = load_checkpoint(write_checkpoint(tmp_path / "epoch_5.pth", state, ADAPTER_CONFIG))
    assert (loaded.spec.header_heads, loaded.spec.header_layers, loaded.clip_frames) == (4, 2, 5)


def test_keys_that_do_not_fit_are_listed(tmp_path):
    state = to_official(tiny_adapter().state_dict())
    state["adapter.transformer.resblocks.0.ln_3.bias"] = state.pop("adapter.transformer.resblocks.0.ln_2.bias")
    path = write_checkpoint(tmp_path / "epoch_5.pth", state, ADAPTER_CONFIG)
    with pytest.raises(WeightsError, match=r"missing \{adapter.*ln_2.bias\}; unexpected \{adapter.*ln_3.bias\}"):
        load_checkpoint(path)
    state = to_official(tiny_adapter().state_dict()) | {"global_mat_weight": torch.eye(64)}
    del state["adapter.positional_embedding"]
    path = write_checkpoint(tmp_path / "epoch_6.pth", state, ADAPTER_CONFIG)
    with pytest.raises(WeightsError, match=r"missing \{adapter.positional_emb\w+\}; unexpected \{global_mat_weight\}"):
        load_checkpoint(path)


@pytest.mark.parametrize("make", [tiny_adapter, lambda: tiny_two_tower(family="clip4clip", pooling="mmaction2")])
def test_our_own_folder_keeps_what_no_tensor_tells(tmp_path, make):
    model = make()
    save_model(model, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.spec == model.spec
    assert load_untrained(tmp_path, seed=1, pooling="mmaction2").spec == model.spec
    (ids, mask), (frames, real) = texts(3, 10), clips(2, 5)
    with torch.no_grad():
        ours, theirs = (m.similarity(m.encode_text(ids, mask), m.encode_video(frames, real)) for m in (model, loaded))
    assert torch.equal(ours, theirs)
    with pytest.raises(WeightsError, match=r"another pooling: .*found mmaction2.*--model.pooling=auto"):
        load_checkpoint(tmp_path, pooling="clip4clip")


def test_a_pooling_that_nobody_knows_is_refused(tmp_path):
    save_model(tiny_two_tower(family="clip4clip", pooling="mmaction2"), tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"mmaction2"', '"max"'))
    with pytest.raises(WeightsError, match="pooling max, expected clip4clip or mmaction2"):
        load_checkpoint(tmp_path)


def test_plain_clip_weights_become_mmaction2s_on_request(tmp_path):
    state = {
        name.removeprefix("clip."): tensor
        for name, tensor in to_official(tiny_two_tower(family="clip4clip").state_dict()).items()
    }
    torch.save(state, tmp_path / "clip.pt")
    model = load_checkpoint(tmp_path / "clip.pt", pooling="mmaction2")
    assert (model.family, model.spec.header, model.text_slots, model.clip_frames) == ("clip4clip", "mean", 16, 0)
    adapted = load_checkpoint(tmp_path / "clip.pt", pooling="mmaction2", header="transformer", max_frames=8)
    assert adapted.clip_frames == 8
    assert isinstance(adapted.temporal, TransformerAdapter)
    for wish in ({"family": "xclip"}, {"header": "lstm"}):
        with pytest.raises(WeightsError, match="MMAction2 has clip4clip with mean or transformer"):
            load_checkpoint(tmp_path / "clip.pt", pooling="mmaction2", **wish)
