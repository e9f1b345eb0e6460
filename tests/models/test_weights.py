import contextlib
import json
import logging
import os
import pickle
import random
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.models_factory import TINY, clips, texts, tiny_hf_clip, tiny_ms_xclip, tiny_two_tower

from xclip_module.errors import ConfigError, WeightsError
from xclip_module.models import load_checkpoint, load_untrained, save_model
from xclip_module.models.files import read_script_archive, read_stored
from xclip_module.models.official import GRAINED, from_official, infer_spec, to_official, unused_names
from xclip_module.models.saving import spec_to_json
from xclip_module.models.two_tower import TwoTower
from xclip_module.models.weights import _spec_from_json

GOLDEN = Path(__file__).parents[1] / "golden" / "clip4clip"
# A folder of complete cases, larger than the repository carries; see golden/README.md.
LAYOUTS = sorted(Path(os.environ.get("XCLIP_GOLDEN", "nowhere")).glob("state_dict_layout/*.json"))
KINDS = [
    {},
    {"header": "transformer", "header_layers": 3},
    {"header": "lstm"},
    {"family": "clip4clip"},
    {"family": "clip4clip", "header": "transformer", "header_layers": 2},
    {"family": "clip4clip", "header": "lstm"},
    {"family": "clip4clip", "header": "tight", "header_layers": 2},
    {"patch_frames": 3},
    {"words": 7, "frames": 9, "embed": 128},
]


@contextlib.contextmanager
def ignored_warnings():
    """Newer torch announces the end of TorchScript, older does not; OpenAI's files stay what they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@torch.no_grad()
def scores(model):
    ids, mask = texts(3, model.text_slots)
    frames, frame_mask = clips(2, model.clip_frames or 5, is_ragged=model.family != "ms-xclip")
    return model.similarity(model.encode_text(ids, mask), model.encode_video(frames, frame_mask))


@pytest.fixture
def official_file(tmp_path):
    """A tiny official X-CLIP state dict on disk, after a change by the caller."""

    def write(change=lambda state: None, name="pytorch_model.bin.4"):
        state = {key: tensor.clone() for key, tensor in to_official(tiny_two_tower().state_dict()).items()}
        change(state)
        torch.save(state, tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def openai_archive(tmp_path):
    """A TorchScript archive with OpenAI's key names, nested modules and bookkeeping integers, in fp16."""
    state = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN / "clip_A.npz").items()}
    root = torch.nn.Module()
    for name, tensor in state.items():
        module, *rest = root, *name.split(".")
        for part in rest[:-1]:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        module.register_parameter(rest[-1], torch.nn.Parameter(tensor, requires_grad=False))
    for name, number in (("input_resolution", 64), ("context_length", 77), ("vocab_size", 600)):
        root.register_buffer(name, torch.tensor(number))
    root.forward = lambda x: x
    path = tmp_path / "ViT-tiny.pt"
    with ignored_warnings():
        torch.jit.save(torch.jit.trace(root, torch.zeros(1)), path)
    return path, state


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_family_header_and_sizes_are_read_off_the_tensors(tmp_path, changes):
    model = tiny_two_tower(**changes)
    torch.save(to_official(model.state_dict()), tmp_path / "model.bin")
    loaded = load_checkpoint(tmp_path / "model.bin")
    expected = model.spec._replace(words=32, frames=12) if model.family == "clip4clip" else model.spec
    assert loaded.spec == expected
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_names_go_both_ways(changes):
    state = tiny_two_tower(**changes).state_dict()
    back = from_official(to_official(state))
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in state.items()}
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda file: file.stem)
@pytest.mark.parametrize("family", ["xclip", "clip4clip"])
def test_released_checkpoints_of_full_size_have_exactly_our_tensors(layout, family):
    """Names and shapes as the released code saves them; CLIP4Clip's are the same but for the learned matrices."""
    shapes = {name: shape for name, (shape, _) in json.loads(layout.read_text())["tensors"].items()}
    state = {n: torch.empty(s, device="meta") for n, s in shapes.items() if family == "xclip" or n not in GRAINED}
    spec = infer_spec(state, layout)
    assert spec.family == (family if spec.header != "tight" else "clip4clip")
    with torch.device("meta"):
        model = TwoTower(spec)
    ours = {name: list(tensor.shape) for name, tensor in to_official(model.state_dict()).items()}
    assert ours == {name: shapes[name] for name in set(state) - unused_names(state, spec)}


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.safetensors", "model.pth"])
@pytest.mark.parametrize("half", [False, True])
def test_every_file_kind_and_precision_gives_the_same_model(tmp_path, name, half):
    model = tiny_two_tower()
    state = {key: t.half() if half else t.clone() for key, t in to_official(model.state_dict()).items()}
    save_file({k: t.contiguous() for k, t in state.items()}, tmp_path / name) if "safe" in name else torch.save(
        state, tmp_path / name
    )
    loaded = load_checkpoint(tmp_path / name)
    assert loaded.logit_scale.dtype == torch.float32
    torch.testing.assert_close(scores(loaded), scores(model), rtol=0, atol=0.05 if half else 0)


def test_wrapped_and_distributed_state_dicts_are_unwrapped(official_file, tmp_path):
    state = read_stored(official_file()).tensors
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "wrapped.pt")
    assert torch.equal(scores(load_checkpoint(tmp_path / "wrapped.pt")), scores(load_checkpoint(official_file())))


def drop(state):
    del state["clip.visual.ln_pre.bias"]


def rename(state):
    state["word_mat_wait"] = state.pop("word_mat_weight")


def prefix(state):
    for key in list(state):
        state[f"model.{key}"] = state.pop(key)


def reshape(state):
    state["frame_mat_weight2"] = torch.eye(6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"does not fit.*missing \{clip.visual.ln_pre.bias\}"),
        (rename, r"missing \{word_mat_weight\}; unexpected \{word_mat_wait\}"),
        (prefix, r"missing \{clip.*found \d+ tensors such as"),
        (reshape, r"mis-sized \{frame_mat_weight2 found \[6, 6\], expected \[5, 5\]\}"),
    ],
)
def test_keys_that_do_not_fit_are_one_line_with_the_sets(official_file, change, message):
    path = official_file(change)
    with pytest.raises(WeightsError, match=message) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_checkpoint_with_its_own_header_refuses_another(official_file):
    with pytest.raises(WeightsError, match="another header.*found mean, asked for lstm"):
        load_checkpoint(official_file(), header="lstm")


def test_masked_padding_is_an_option_that_the_results_name(official_file):
    plain, masked = load_checkpoint(official_file()), load_checkpoint(official_file(), padding="masked")
    assert "as released" in plain.protocol
    assert "masked" in masked.protocol
    assert (scores(plain) - scores(masked)).abs().max() > 1e-3


def test_openai_archive_equals_what_torchscript_reads(openai_archive):
    path, state = openai_archive
    with ignored_warnings():
        expected = torch.jit.load(path).state_dict()
    ours = read_script_archive(path)
    assert set(ours) == set(expected)
    assert all(torch.equal(ours[name], expected[name]) and ours[name].dtype == expected[name].dtype for name in ours)


def test_openai_archive_plain_file_and_hugging_face_folder_agree(openai_archive, tmp_path):
    path, state = openai_archive
    torch.save(state, tmp_path / "plain.pt")
    ids, mask = texts(3, 12, vocabulary=600)
    frames, frame_mask = clips(2, 12, side=64)
    results = []
    for source in (path, tmp_path / "plain.pt"):
        model = load_checkpoint(source, max_words=12)
        assert (model.family, model.spec.header, model.text_slots, model.clip_frames) == ("xclip", "mean", 12, 12)
        with torch.no_grad():
            results.append(model.similarity(model.encode_text(ids, mask), model.encode_video(frames, frame_mask)))
    assert torch.equal(*results)


def test_hugging_face_clip_gives_its_own_features(tmp_path):
    reference = tiny_hf_clip()
    reference.save_pretrained(tmp_path)
    (ids, mask), (frames, frame_mask) = texts(3, 12), clips(2, 5)
    model = load_checkpoint(tmp_path, max_words=12, max_frames=5)
    with torch.no_grad():
        text, video = model.encode_text(ids, mask), model.encode_video(frames, frame_mask)
        sentence = reference.text_projection(reference.text_model(input_ids=ids)[1])
        picture = reference.visual_projection(reference.vision_model(pixel_values=frames.flatten(0, 1))[1])
    torch.testing.assert_close(text.pooled, sentence, rtol=0, atol=1e-5)
    torch.testing.assert_close(video.tokens.flatten(0, 1), picture, rtol=0, atol=1e-5)
    assert model.logit_scale == reference.logit_scale


@pytest.mark.parametrize("make", [tiny_hf_clip, tiny_ms_xclip])
@pytest.mark.parametrize("damage", ["missing", "all_prefixed", "reshaped"])
def test_a_hugging_face_folder_that_does_not_fit_is_refused(tmp_path, make, damage):
    model = make()
    model.save_pretrained(tmp_path)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if damage == "missing":
        del state["visual_projection.weight"]
    elif damage == "reshaped":
        state["visual_projection.weight"] = torch.zeros(3, 3)
    else:
        state = {f"module.{name}": tensor for name, tensor in state.items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="visual_projection.weight" if damage != "all_prefixed" else "missing"):
        load_checkpoint(tmp_path)


def test_our_own_folder_comes_back_as_it_was(tmp_path):
    model = tiny_two_tower(header="transformer", header_layers=2, masked=True, mean=(0.1, 0.2, 0.3))
    save_model(model, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.spec == model.spec
    assert torch.equal(scores(loaded), scores(model))


def test_untrained_weights_depend_on_the_seed_only(tmp_path, caplog):
    save_model(tiny_two_tower(), tmp_path)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = load_untrained(tmp_path, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(scores(first), scores(load_untrained(tmp_path, seed=1)))
    assert not torch.equal(scores(first), scores(load_untrained(tmp_path, seed=2)))
    assert "expect chance" in caplog.text


def test_modules_that_plain_clip_lacks_start_as_released_and_are_named(caplog):
    golden = np.load(GOLDEN / "A_seqTransf_extra_state.npz")
    path = GOLDEN.parent / "clip_A.pt"
    state = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN / "clip_A.npz").items()}
    try:
        torch.save(state, path)
        with caplog.at_level(logging.INFO):
            model = load_checkpoint(path, header="transformer")
    finally:
        path.unlink()
    ours = to_official(model.state_dict())
    for name in golden.files:
        np.testing.assert_array_equal(ours[name].numpy(), golden[name], err_msg=name)
    for name in GRAINED:
        assert torch.equal(ours[name], torch.eye(len(ours[name])))
        assert name in caplog.text
    # The text tower has two blocks; the third and fourth of the header are drawn.
    third = ours["transformerClip.resblocks.2.mlp.c_fc.weight"]
    assert third.std().item() == pytest.approx(0.02, rel=0.05)
    joint = ours["transformerClip.resblocks.2.attn.in_proj_weight"]
    assert joint.abs().max().item() == pytest.approx((6 / (4 * 64)) ** 0.5, rel=0.01)


class Exploit:
    def __reduce__(self):
        return os.system, ("touch exploited",)


@pytest.mark.parametrize("kind", ["torch", "raw_pickle", "script_archive"])
def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pt"
    if kind == "torch":
        torch.save({"clip.visual.proj": Exploit()}, path)
    elif kind == "raw_pickle":
        path.write_bytes(pickle.dumps(Exploit(), protocol=2))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("evil/data.pkl", pickle.dumps(Exploit(), protocol=2))
            archive.writestr("evil/code/__torch__.py", "")
    with pytest.raises(WeightsError, match="unreadable checkpoint") as caught:
        load_checkpoint(path)
    assert not (tmp_path / "exploited").exists()
    assert "weights_only" not in str(caught.value)


def test_damaged_archives_are_refused_or_harmless(openai_archive, tmp_path):
    """200 single flipped bits in an archive: an error, or the very tensors that were stored."""
    path, _ = openai_archive
    content, expected = path.read_bytes(), read_script_archive(path)
    rng, damaged, refused = random.Random(0), tmp_path / "damaged.pt", 0
    for _ in range(200):
        flipped = bytearray(content)
        place = rng.randrange(len(flipped))
        flipped[place] ^= 1 << rng.randrange(8)
        damaged.write_bytes(flipped)
        try:
            state = read_stored(damaged).tensors
        except WeightsError:
            refused += 1
            continue
        assert set(state) == set(expected)
        assert all(torch.equal(state[name], expected[name].float()) for name in state)
    assert refused > 50


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04" + b"x" * 100])
@pytest.mark.parametrize("name", ["model.bin", "model.safetensors"])
def test_files_that_are_no_weights_are_one_clear_line(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match="unreadable checkpoint.*model") as caught:
        load_checkpoint(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_truncated_checkpoints_are_refused(official_file):
    path = official_file()
    content = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(WeightsError):
            load_checkpoint(path)


def test_a_folder_without_config_is_refused_not_invented(tmp_path):
    tiny_hf_clip().save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match="no config.json"):
        load_checkpoint(tmp_path)


def test_a_model_of_another_kind_is_refused_by_name(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match="model_type 'bert'.*expected clip or xclip"):
        load_checkpoint(tmp_path)


def test_a_hub_name_offline_fails_at_once_and_says_what_to_fetch(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"not on this machine.*openai/clip-vit-base-patch32.*hf download") as caught:
        load_checkpoint("openai/clip-vit-base-patch32")
    assert "--model.weights=weights/clip-vit-base-patch32" in str(caught.value)


def test_a_path_that_does_not_exist_is_not_taken_for_a_hub_name():
    with pytest.raises(WeightsError, match="no such checkpoint"):
        load_checkpoint("weights/missing.pt")


def test_a_kernel_that_is_not_installed_is_refused_before_any_work(official_file, monkeypatch):
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: False)
    with pytest.raises(ConfigError, match=r"flash_attention_2.*--model.attention=sdpa"):
        load_checkpoint(official_file(), attention="flash_attention_2")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_kernel_gives_the_same_scores(official_file, attention):
    expected = scores(load_checkpoint(official_file()))
    torch.testing.assert_close(
        scores(load_checkpoint(official_file(), attention=attention)), expected, atol=1e-5, rtol=0
    )


def test_spec_survives_json():
    assert _spec_from_json(json.loads(json.dumps(spec_to_json(TINY))), "x") == TINY


@pytest.mark.parametrize(
    "name",
    [
        "weights/vit--b32",
        "weights/vit-b32.",
        "a/b..c",
        "a/-x",
        "x/y.git",
        "a/" + "x" * 200,
        "~nobody-here/x",
        "x" * 5000,
    ],
    ids=lambda name: name[:20],
)
def test_a_name_that_no_hub_or_disk_knows_is_one_line(name):
    with pytest.raises(WeightsError, match="no such checkpoint") as caught:
        load_checkpoint(name)
    assert "; try: " in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: [1], "config.json: TypeError found list"),
        (lambda config: {"format": config["format"]}, "its spec does not fit: 'vision'"),
        (lambda config: {**config, "spec": "x"}, "its spec does not fit"),
        (lambda config: {**config, "spec": {**config["spec"], "embed": "128"}}, "embed|projection_dim|str"),
        (lambda config: {**config, "spec": {**config["spec"], "words": 200}}, "words 200, expected 3 to context = 16"),
        (
            lambda config: {**config, "spec": {**config["spec"], "vision": {**config["spec"]["vision"], "heads": 7}}},
            "7",
        ),
    ],
)
@pytest.mark.parametrize("is_trained", [True, False])
def test_a_config_that_describes_no_model_is_one_line(tmp_path, change, message, is_trained):
    save_model(tiny_two_tower(), tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(WeightsError, match=message) as caught:
        load_checkpoint(tmp_path) if is_trained else load_untrained(tmp_path, seed=1)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{bad", "[]", '{"image_mean": 3}', '{"image_mean": [1, 2]}', '{"image_std": "abc"}'])
def test_a_broken_preprocessor_file_is_one_line(tmp_path, text):
    tiny_hf_clip().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(WeightsError, match="unreadable"):
        load_checkpoint(tmp_path)


def scalar(state):
    state["clip.text_projection"] = torch.tensor(1.0)


def number(state):
    state[1] = torch.ones(2)


def sparse(state):
    state["clip.text_projection"] = state["clip.text_projection"].to_sparse()


def complex_numbers(state):
    state["clip.text_projection"] = state["clip.text_projection"].to(torch.complex64)


@pytest.mark.parametrize("change", [scalar, number, sparse, complex_numbers])
def test_tensors_that_are_no_weights_are_one_line(official_file, change):
    path = official_file(change)
    with ignored_warnings(), pytest.raises(WeightsError, match="unreadable checkpoint|not a state dict") as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"family": "xclip"}, "another family: .*found ms-xclip, asked for xclip; try: --model.family=auto"),
        ({"header": "mean"}, "another header"),
        ({"max_words": 12}, "another max_words: .*; try: --model.max_words=0"),
        ({"padding": "masked"}, "padding is a choice of xclip only: .*found ms-xclip"),
        ({"pooling": "mmaction2"}, "another pooling"),
    ],
)
def test_ms_xclip_refuses_what_it_would_ignore(tmp_path, wish, message):
    tiny_ms_xclip().save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=message):
        load_checkpoint(tmp_path, **wish)


def test_a_checkpoint_with_its_own_words_refuses_another_number(official_file):
    assert load_checkpoint(official_file(), max_words=10).text_slots == 10
    with pytest.raises(WeightsError, match="another max_words: .*found 10, asked for 12"):
        load_checkpoint(official_file(), max_words=12)


def test_clip4clip_takes_any_number_of_words_and_knows_no_padding(tmp_path):
    torch.save(to_official(tiny_two_tower(family="clip4clip").state_dict()), tmp_path / "model.bin")
    assert load_checkpoint(tmp_path / "model.bin", max_words=8).text_slots == 8
    with pytest.raises(WeightsError, match="more words than the checkpoint takes: .*max_words=40.*takes 16"):
        load_checkpoint(tmp_path / "model.bin", max_words=40)
    with pytest.raises(WeightsError, match="padding is a choice of xclip only"):
        load_checkpoint(tmp_path / "model.bin", padding="masked")


@pytest.mark.parametrize("make", [tiny_two_tower, tiny_ms_xclip])
def test_the_digest_covers_every_weight(tmp_path, make):
    model = make()
    if make is tiny_ms_xclip:
        model.save_pretrained(tmp_path)
        model = load_checkpoint(tmp_path)
    seen = {model.digest()}
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.view(-1)[0] += 1
        seen.add(model.digest())
    assert len(seen) == 1 + len(list(model.parameters()))
