"""The head's file and scores, where it may be used, and the features that it sees."""

import contextlib
import json
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.models_factory import clips, tiny_ms_xclip, tiny_two_tower

from xclip_module.config import Config, DataConfig, resolve
from xclip_module.errors import ConfigError, NonFiniteError, WeightsError
from xclip_module.features.window_features import known_features, window_features
from xclip_module.interface import Picture, Sampling
from xclip_module.models import head as head_file
from xclip_module.models.head import Head, HeadQuery, load_head, log_odds, save_head
from xclip_module.models.ms_xclip import MicrosoftXClip
from xclip_module.models.temporal_head import TemporalHead
from xclip_module.tasks.localisation import head as heads

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
QUERIES = (
    HeadQuery("cutting", "the gallbladder is cut; or torn", "phase"),
    HeadQuery("hook", "a hook is in use", "tool"),
    HeadQuery("packing", "the bag is closed", "phase"),
    HeadQuery("cleaning", "the bed is rinsed", "phase"),
    HeadQuery("smoke; much of it;", "smoke", "free"),
)
KINDS = [query.kind for query in QUERIES]
KNOWN = torch.tensor([True, True, True, True, True])


def make_head(*, is_temporal=False, known=KNOWN, width=6, source=None):
    torch.manual_seed(0)
    network = TemporalHead(width, 5, exclusive=[(0, 2, 3)], channels=4, layers=2).eval() if is_temporal else None
    return Head(
        queries=QUERIES,
        mean=torch.randn(width),
        inverse=torch.rand(width),
        weight=torch.randn(5, width),
        bias=torch.randn(5),
        known=known,
        temporal=network,
        source=source or {"features": "window", "picture": [32, [0.1, 0.2, 0.3], [1.0, 1.0, 1.0]]},
        made={"protocol": "linear probe of é", "flags": "the defaults", "numbers": [1e-300, 0.1]},
    )


@pytest.mark.parametrize("is_temporal", [False, True], ids=["linear", "with a network"])
def test_a_head_comes_back_from_its_file_bit_for_bit(tmp_path, is_temporal):
    head = make_head(is_temporal=is_temporal, known=torch.tensor([True, False, True, True, True]))
    save_head(head, tmp_path / "head.safetensors")
    found = load_head(tmp_path / "head.safetensors")
    for name in ("mean", "inverse", "weight", "bias", "known"):
        assert torch.equal(getattr(found, name), getattr(head, name)), name
        assert getattr(found, name).dtype == getattr(head, name).dtype
    assert (found.queries, found.source, found.made) == (head.queries, head.source, head.made)
    assert (found.temporal is not None) == is_temporal
    save_head(found, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "head.safetensors").read_bytes()
    features = torch.randn(9, 6)
    scores = head.scores(features)
    assert scores.shape == (10 if is_temporal else 5, 9)
    assert torch.equal(found.scores(features), scores)


def test_scores_are_the_standardised_features_through_weight_and_bias():
    head = make_head(is_temporal=True)
    features = torch.randn(7, 6)
    inputs = (features.numpy() - head.mean.numpy()) * head.inverse.numpy()
    linear = inputs @ head.weight.numpy().T + head.bias.numpy()
    with torch.no_grad():
        network = head.temporal(torch.tensor(inputs))[-1].numpy().T
    expected = np.concatenate([slow_log_odds(linear), slow_log_odds(network)], axis=1)
    np.testing.assert_allclose(head.scores(features).numpy(), expected.T, atol=1e-5)


def slow_log_odds(logits):
    """Of a phase: p / (1 - p) of a softmax over the phases."""
    found = logits.copy()
    phases = [row for row, kind in enumerate(KINDS) if kind == "phase"]
    probs = np.exp(logits[:, phases]) / np.exp(logits[:, phases]).sum(1, keepdims=True)
    found[:, phases] = np.log(probs / (1 - probs))
    return found


def test_odds_of_a_phase_are_against_all_known_phases_and_those_of_a_tool_are_its_logit():
    """By hand: the logits log 6, log 2, log 1 are shares 6/9, 2/9, 1/9; without the last 6/8 and 2/8."""
    logits = torch.tensor([6.0, 0.5, 2.0, 1.0, 3.0]).log()[:, None]
    expected = torch.tensor([6 / 3, 0.5, 2 / 7, 1 / 8, 3.0]).log()[:, None]
    torch.testing.assert_close(log_odds(logits, KINDS, KNOWN), expected)
    unknown = log_odds(logits, KINDS, torch.tensor([True, True, True, False, False]))
    torch.testing.assert_close(unknown[:3], torch.tensor([[6 / 2], [0.5], [2 / 6]]).log())
    assert unknown[3:].tolist() == [[-100.0], [-100.0]]
    assert logits[3] == 0


@pytest.mark.parametrize("is_temporal", [False, True], ids=["linear", "with a network"])
def test_a_query_that_training_did_not_know_scores_the_same_everywhere(is_temporal):
    head = make_head(is_temporal=is_temporal, known=torch.tensor([True, True, True, True, False]))
    scores = head.scores(torch.randn(50, 6)).unflatten(0, (-1, 5))
    assert (scores[:, 4] == -100).all()
    assert (scores[:, :4].std(dim=2) > 0).all()
    assert torch.isfinite(scores).all()


def saved(folder, **options):
    path = folder / "head.safetensors"
    save_head(make_head(is_temporal=True, **options), path)
    return path


def test_a_bit_that_flips_is_refused_or_harmless(tmp_path):
    path = saved(tmp_path)
    content, expected = path.read_bytes(), load_head(path).scores(torch.ones(4, 6))
    places = {*range(0, 24), *np.random.default_rng(0).integers(len(content), size=120).tolist()}
    harmless = []
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with contextlib.suppress(WeightsError):
            harmless.append(load_head(path))
    assert len(harmless) < 0.05 * len(places)
    assert all(one.queries == QUERIES and torch.equal(one.scores(torch.ones(4, 6)), expected) for one in harmless)


def test_a_file_that_was_cut_is_refused(tmp_path):
    path = saved(tmp_path)
    content = path.read_bytes()
    for length in [*range(0, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match=r"head.safetensors"):
            load_head(path)


def test_what_is_no_head_says_so(tmp_path):
    path = tmp_path / "x.safetensors"
    with pytest.raises(WeightsError, match=r"no such head: .*x.safetensors; try: --model.head="):
        load_head(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(WeightsError, match="not a head: .*its format is None, expected 'xclip_module.head'"):
        load_head(path)
    save_file({"weight": torch.ones(2)}, path, metadata={"head": json.dumps({"format": "other"})})
    with pytest.raises(WeightsError, match="not a head: .*its format is 'other'"):
        load_head(path)
    for content in (b"", b"\n", b"PK\x03\x04" * 99, json.dumps({"format": "xclip_module.head"}).encode()):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="unreadable head"):
            load_head(path)


def test_a_head_of_another_version_or_without_a_tensor_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(head_file, "_VERSION", 2)
    path = saved(tmp_path)
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="head of another version: .*version 2, this program reads 1"):
        load_head(path)
    monkeypatch.setattr(head_file, "_TENSORS", ("mean", "inverse", "weight", "bias"))
    path = saved(tmp_path)
    monkeypatch.undo()
    with pytest.raises(WeightsError, match="unreadable head: .*'known'"):
        load_head(path)


MODELS = {
    "mean": tiny_two_tower,
    "transformer": lambda: tiny_two_tower(header="transformer", header_layers=1),
    "ms-xclip": lambda: MicrosoftXClip(tiny_ms_xclip(), Picture(32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))).eval(),
}
SAMPLING = Sampling(4.0, 4, 1.0)


def config_of(**values):
    return resolve(Config(), arguments={name.replace("__", "."): value for name, value in values.items()})


@pytest.mark.parametrize(
    ("name", "known"),
    [("mean", ("window", "frame")), ("transformer", ("window", "frame", "temporal")), ("ms-xclip", ("video",))],
)
def test_only_features_that_a_model_has_are_probed(name, known):
    model = MODELS[name]()
    assert heads.choose_features(config_of(), model) == known[0]
    for features in ("frame", "window", "temporal", "video"):
        config = config_of(probe__features=features)
        if features in known:
            assert heads.choose_features(config, model) == features
            continue
        with pytest.raises(ConfigError, match=rf"probe.features={features}: .* has {', '.join(known)}; try: --probe"):
            heads.choose_features(config, model)


def test_clips_of_three_frame_patches_are_probed_whole():
    assert known_features(tiny_two_tower(patch_frames=3)) == ("video",)


def recording(tmp_path, queries=""):
    (tmp_path / "op.mp4").touch()
    return DataConfig(video=str(tmp_path / "op.mp4"), queries=queries)


def test_a_recording_is_searched_for_all_that_the_head_knows(tmp_path):
    assert heads.load_queries(recording(tmp_path), make_head()).queries == QUERIES


def test_queries_are_found_by_name_or_by_sentence_in_the_order_asked_for(tmp_path):
    corpus = heads.load_queries(recording(tmp_path, "a hook is in use; packing; smoke; hook"), make_head())
    assert [(query.name, query.kind) for query in corpus.queries] == [
        ("hook", "tool"),
        ("packing", "phase"),
        ("smoke; much of it;", "free"),
    ]


def test_a_data_sets_own_queries_are_found_under_the_names_of_their_truth(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "m.csv").write_text("video,query,start_time,end_time\na,packing,0,1\na,hook,0,1\n")
    data = DataConfig(name="moments", root=str(tmp_path), annotations=str(tmp_path / "m.csv"))
    corpus = heads.load_queries(data, make_head())
    assert [(query.name, query.kind) for query in corpus.queries] == [("packing", "phase"), ("hook", "tool")]
    assert {query.name for query in corpus.queries} == set(corpus.moments["a"])


def test_a_query_that_the_head_does_not_know_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="the head does not know “paking”: did you mean packing"):
        heads.load_queries(recording(tmp_path, "hook; paking"), make_head())


@pytest.mark.parametrize("key", ["prompt_sets", "background"])
def test_what_goes_with_sentences_only_is_refused_beside_a_head(tmp_path, key):
    path = saved(tmp_path)
    assert heads.read_head(config_of(**{f"eval__{key}": "x"})) is None
    assert heads.read_head(config_of(model__head=str(path))).queries == QUERIES
    with pytest.raises(ConfigError, match=f"eval.{key} with model.head: .*; try: leave eval.{key} empty"):
        heads.read_head(config_of(model__head=str(path), **{f"eval__{key}": "x"}))


def fitted(tmp_path, features, *, name="transformer", here=None, keys=None, is_temporal=False, **sampling):
    """The head of a model's features through its file, and what `fit_to` says of it with another model or settings."""
    model = MODELS[name]()
    source = heads.source_of(config_of(), model, SAMPLING, features)
    source |= {"stride_seconds": SAMPLING.stride_seconds} if is_temporal else {}
    save_head(make_head(is_temporal=is_temporal, source=source, width=64), tmp_path / "head.safetensors")
    head = load_head(tmp_path / "head.safetensors")
    corpus = heads.load_queries(recording(tmp_path, "packing; hook"), head)
    config = config_of(model__head="head.safetensors", **(keys or {}))
    return heads.fit_to(config, corpus, here() if here else model, SAMPLING._replace(**sampling), head)


def with_other(part):
    model = MODELS["transformer"]()
    with torch.no_grad():
        next(getattr(model, part).parameters())[0] += 0.1
    return model


def with_picture(**changes):
    model = MODELS["transformer"]()
    model.picture = model.picture._replace(**changes)
    return model


@pytest.mark.parametrize(
    ("features", "changed", "difference"),
    [
        ("window", {"here": partial(with_other, "frame_encoder")}, "weights "),
        ("temporal", {"here": partial(with_other, "temporal")}, "weights "),
        ("temporal", {"here": MODELS["mean"]}, "features temporal, here none"),
        ("window", {"here": MODELS["ms-xclip"]}, "features window, here none"),
        ("window", {"here": partial(with_picture, size=48)}, "picture [32, "),
        ("window", {"here": partial(with_picture, mean=(0.5, 0.5, 0.5))}, "picture [32, "),
        ("window", {"here": partial(with_picture, std=(0.5, 0.5, 0.5))}, "picture [32, "),
        ("window", {"keys": {"data__crop": "pad"}}, "crop center, here pad"),
        ("window", {"clip_seconds": 5.0}, "clip_seconds 4.0, here 5.0"),
        ("window", {"frames_per_clip": 5}, "frames_per_clip 4, here 5"),
        ("window", {"stride_seconds": 2.0, "is_temporal": True}, "stride_seconds 1.0, here 2.0"),
    ],
)
def test_a_head_for_other_features_is_refused_with_the_difference(tmp_path, features, changed, difference):
    with pytest.raises(WeightsError, match="this head is for other features: head.safetensors: ") as caught:
        fitted(tmp_path, features, **changed)
    assert difference in str(caught.value)
    assert str(caught.value).endswith("; try: the defaults")
    if "none" not in difference:
        assert str(caught.value).count(", here ") == 1


def test_what_a_heads_features_do_not_depend_on_may_differ(tmp_path):
    assert fitted(tmp_path, "window", here=partial(with_other, "temporal"), stride_seconds=2.0).rows == (2, 1)
    keys = {"run__precision": "bf16", "data__decoder": "pyav"}
    assert fitted(tmp_path, "window", is_temporal=True, keys=keys).has_temporal
    assert fitted(tmp_path, "video", name="ms-xclip").features == "video"


def test_windows_that_a_run_leaves_open_are_the_heads():
    head = make_head()._replace(made={"clip_seconds": 4.0, "frames_per_clip": 8, "stride_seconds": 0.5})
    found = heads.with_sampling(config_of(data__clip_seconds="6", data__crop="pad"), head).data
    assert (found.clip_seconds, found.frames_per_clip, found.stride_seconds, found.crop) == (6.0, 8, 0.5, "pad")


@pytest.mark.parametrize("is_temporal", [False, True], ids=["linear", "with a network"])
def test_a_probe_scores_the_rows_of_its_queries(tmp_path, is_temporal):
    model = MODELS["transformer"]()
    probe = fitted(tmp_path, "frame", is_temporal=is_temporal)
    stored, rows = {"features": np.random.default_rng(0).normal(size=(9, 64)).astype(np.float16)}, grid(6)
    seen = window_features(stored, model, rows=rows, kind="frame", device=CPU, video="v")
    expected = probe.head.scores(seen)[[2, 1, 7, 6] if is_temporal else [2, 1]].numpy()
    np.testing.assert_array_equal(probe.scores(stored, model, rows=rows, device=CPU, video="v"), expected)


def grid(windows, frames=4):
    return np.arange(windows)[:, None] + np.arange(frames)


def unit(vector):
    length = np.sqrt((vector.astype(np.float64) ** 2).sum())
    return vector / length if length else vector


@pytest.mark.parametrize("frames", [1, 4, 5])
@pytest.mark.parametrize("kind", ["frame", "window"])
def test_features_of_frames_are_the_obvious_loops(kind, frames):
    """More windows than go at a time, float16 as stored, and a frame that is all zero."""
    features = np.random.default_rng(0).normal(size=(700, 64)).astype(np.float16)
    features[3] = 0
    rows = grid(700 - frames + 1, frames)
    found = window_features({"features": features}, MODELS["mean"](), rows=rows, kind=kind, device=CPU, video="v")
    each = [[unit(features[row]) for row in window] for window in rows]
    expected = [window[frames // 2] if kind == "frame" else sum(window) / frames for window in each]
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), np.stack(expected), atol=1e-6)


@torch.no_grad()
def test_temporal_features_are_the_models_embedding_of_each_clip():
    """Against the whole model on the pixels of one clip at a time."""
    model, (pixels, _) = MODELS["transformer"](), clips(1, 12)
    stored = {"features": model.encode_frames(pixels[0]).numpy()}
    found = window_features(stored, model, rows=grid(9), kind="temporal", device=CPU, video="v")
    mask = torch.ones(1, 4, dtype=torch.bool)
    expected = torch.cat([model.encode_video(pixels[:, m : m + 4], mask).pooled for m in range(9)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    window = window_features(stored, model, rows=grid(9), kind="window", device=CPU, video="v")
    assert (found - window).abs().max() > 0.01


@torch.no_grad()
def test_video_features_are_the_normalised_embeddings_of_whole_clips():
    model, (pixels, mask) = MODELS["ms-xclip"](), clips(6, 4)
    expected = [model.encode_video(pixels[m : m + 1], mask[:1]).pooled[0].numpy() for m in range(6)]
    stored = {"pooled": np.stack(expected), "tokens": np.zeros((6, 4, 64))}
    found = window_features(stored, model, rows=grid(6), kind="video", device=CPU, video="v")
    np.testing.assert_allclose(found.numpy(), np.stack([unit(one) for one in expected]), atol=1e-6)


def test_every_stored_clip_is_seen_once_and_in_order():
    pooled = np.random.default_rng(0).normal(size=(1100, 64)).astype(np.float16)
    found = window_features(
        {"pooled": pooled}, MODELS["ms-xclip"](), rows=grid(1100), kind="video", device=CPU, video="v"
    )
    np.testing.assert_allclose(found.numpy(), np.stack([unit(one) for one in pooled.astype(np.float64)]), atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["frame", "window", "temporal", "video"])
def test_features_that_are_not_finite_name_the_video(kind, value):
    arrays = np.ones((8, 64), np.float16)
    arrays[2, 5] = value
    stored, model = {"features": arrays, "pooled": arrays}, MODELS["ms-xclip" if kind == "video" else "transformer"]()
    count = {"frame": "1 of 5", "window": "3 of 5", "temporal": "3 of 5", "video": "1 of 5"}[kind]
    with pytest.raises(NonFiniteError, match=f"features are not finite: video07: NaN or infinity in {count} windows"):
        window_features(stored, model, rows=grid(5), kind=kind, device=CPU, video="video07")
