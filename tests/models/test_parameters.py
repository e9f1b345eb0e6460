"""Which parameters come pretrained, stay frozen or are recomputed."""

import json
from pathlib import Path

import pytest
import torch
from support.models_factory import clips, texts, tiny_ms_xclip, tiny_two_tower
from transformers.models.clip.modeling_clip import CLIPAttention
from transformers.models.x_clip.modeling_x_clip import XCLIPAttention

from xclip_module.interface import Embeddings, Picture
from xclip_module.models.ms_xclip import MicrosoftXClip
from xclip_module.models.official import to_official
from xclip_module.models.parameters import checkpoint_activations_, freeze_, logit_scale, pretrained_names

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "clip4clip" / "frozen_parameters.json").read_text())


def ms_xclip():
    return MicrosoftXClip(tiny_ms_xclip(), Picture(32, (0.5,) * 3, (0.5,) * 3))


def official(model, names):
    named = dict(model.named_parameters())
    return set(to_official({name: named[name] for name in names}))


@pytest.mark.parametrize("header", ["mean", "transformer", "lstm"])
def test_pretrained_are_the_released_names_under_clip(header):
    """`transformerClip` is none of them."""
    model = tiny_two_tower(header=header, header_layers=2)
    every = official(model, dict(model.named_parameters()))
    assert official(model, pretrained_names(model)) == {name for name in every if name.startswith("clip.")}
    assert {"clip.logit_scale", "clip.visual.conv1.weight"} <= every


def test_all_of_ms_xclip_is_pretrained():
    model = ms_xclip()
    assert pretrained_names(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("layers", [-1, 0, 1, 2])
def test_frozen_are_the_released_names(layers):
    model = tiny_two_tower(header="transformer", header_layers=2)
    names = freeze_(model, layers)
    assert official(model, names) == {f"clip.{name}" for name in GOLDEN[str(layers)]}
    assert names == [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def test_a_patch_embedding_over_three_frames_trains_and_the_rest_is_frozen_as_meant():
    """The released code freezes nothing there, by a slip."""
    assert GOLDEN["0_3d"] == []
    model = tiny_two_tower(family="clip4clip", patch_frames=3)
    expected = {f"clip.{name}" for name in GOLDEN["0"] if name != "visual.conv1.weight"}
    assert official(model, freeze_(model, 0)) == expected


def test_ms_xclip_freezes_what_lies_under_its_blocks_and_the_lowest_of_each_tower():
    model = ms_xclip()
    frozen = set(freeze_(model, 1))
    towers = {"text": "text_model", "vision": "vision_model"}
    expected = {
        name
        for name, _ in model.named_parameters()
        for tower in towers.values()
        if name.startswith((f"model.{tower}.embeddings.", f"model.{tower}.pre_", f"model.{tower}.encoder.layers.0."))
    }
    assert frozen == expected
    assert "model.vision_model.encoder.layers.0.message_fc.weight" in frozen
    assert not {name for name in frozen if ".mit." in name or "prompts" in name or "projection" in name}


def test_a_deeper_freeze_than_the_tower_leaves_norms_projections_and_head():
    model = tiny_two_tower()
    freeze_(model, 99)
    trained = official(model, [name for name, p in model.named_parameters() if p.requires_grad and "head." not in name])
    assert trained == {
        "clip.logit_scale",
        "clip.ln_final.weight",
        "clip.ln_final.bias",
        "clip.text_projection",
        "clip.visual.ln_post.weight",
        "clip.visual.ln_post.bias",
        "clip.visual.proj",
    }


@pytest.mark.parametrize("build", [tiny_two_tower, ms_xclip], ids=["xclip", "ms-xclip"])
def test_checkpointed_activations_give_the_same_gradients_from_fewer_kept_bytes(build):
    """With dropout on: the second computation must draw the same."""
    kept, gradients = [], []
    for is_checkpointed in (False, True):
        model = build().train()
        for part in model.modules():
            if isinstance(part, CLIPAttention | XCLIPAttention):
                part.dropout = 0.2
        if is_checkpointed:
            checkpoint_activations_(model)
        torch.manual_seed(0)
        sizes = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.nbytes)
            return tensor

        (ids, mask), (frames, real) = texts(4, 10), clips(4, 4 if build is ms_xclip else 5)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            embedded = model.encode_text(ids, mask), model.encode_video(frames, real)
        kept.append(sum(sizes))
        model.similarity(*embedded).logsumexp(0).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert kept[1] < kept[0] / 2
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("build", [tiny_two_tower, ms_xclip], ids=["xclip", "ms-xclip"])
def test_the_logit_scale_is_the_one_that_the_similarity_uses(build):
    model = build()
    (ids, mask), (frames, real) = texts(3, 10), clips(2, 4 if build is ms_xclip else 5)
    with torch.no_grad():
        embedded = model.encode_text(ids, mask), model.encode_video(frames, real)
        before = model.similarity(*embedded)
        logit_scale(model).add_(torch.tensor(2.0).log())
        torch.testing.assert_close(model.similarity(*embedded), 2 * before, rtol=1e-5, atol=1e-4)


def test_the_cross_encoder_drops_a_tenth_of_its_embeddings_in_train_mode_only():
    model = tiny_two_tower(family="clip4clip", header="tight", header_layers=1)
    seen = []
    model.head.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    text = Embeddings(torch.randn(20, 64), torch.zeros(20, 1, 64), torch.ones(20, 1, dtype=torch.bool))
    video = Embeddings(torch.randn(20, 64), torch.randn(20, 5, 64), torch.ones(20, 5, dtype=torch.bool))
    for is_training in (False, True):
        model.train(is_training).similarity(text, video)
    whole, dropped = seen
    is_zero = dropped == 0
    assert not (whole == 0).any()
    assert is_zero.double().mean() == pytest.approx(0.1, abs=0.005)
    torch.testing.assert_close(dropped[~is_zero], whole[~is_zero] / 0.9)
