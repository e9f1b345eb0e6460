"""Where a head may be used, and what it scores there."""

from functools import partial

import numpy as np
import pytest
import torch
from support.heads_factory import CPU, MODELS, QUERIES, grid, make_head

from xclip_module.config import DataConfig, EvalConfig
from xclip_module.errors import ConfigError, WeightsError
from xclip_module.features.scoring import window_features
from xclip_module.interface import Sampling
from xclip_module.models.head import load_head, save_head
from xclip_module.tasks.localisation.load import load_head_queries, read_head
from xclip_module.tasks.localisation.scorers import HeadScorer, check_fit, query_rows, source_of, with_sampling
from xclip_module.tasks.localisation.windows import WindowEncoder
from xclip_module.tasks.weights import AS_CONFIGURED

pytestmark = pytest.mark.usefixtures("one_thread")
SAMPLING = Sampling(4.0, 4, 1.0)


def recording(tmp_path, queries=""):
    (tmp_path / "op.mp4").touch()
    return DataConfig(video=str(tmp_path / "op.mp4"), queries=queries)


def test_a_recording_is_searched_for_all_that_the_head_knows(tmp_path):
    assert load_head_queries(recording(tmp_path), make_head()).queries == QUERIES


def test_queries_are_found_by_name_or_by_sentence_in_the_order_asked_for(tmp_path):
    corpus = load_head_queries(recording(tmp_path, "a hook is in use; packing; smoke; hook"), make_head())
    assert [(query.name, query.kind) for query in corpus.queries] == [
        ("hook", "tool"),
        ("packing", "phase"),
        ("smoke; much of it;", "free"),
    ]


def test_a_data_sets_own_queries_are_found_under_the_names_of_their_truth(tmp_path):
    (tmp_path / "a.mp4").touch()
    (tmp_path / "m.csv").write_text("video,query,start_time,end_time\na,packing,0,1\na,hook,0,1\n")
    data = DataConfig(name="moments", root=str(tmp_path), annotations=str(tmp_path / "m.csv"))
    corpus = load_head_queries(data, make_head())
    assert [(query.name, query.kind) for query in corpus.queries] == [("packing", "phase"), ("hook", "tool")]
    assert {query.name for query in corpus.queries} == set(corpus.moments["a"])


def test_a_query_that_the_head_does_not_know_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="the head does not know “paking”: did you mean packing"):
        load_head_queries(recording(tmp_path, "hook; paking"), make_head())


@pytest.mark.parametrize("key", ["prompt_sets", "background"])
def test_what_goes_with_sentences_only_is_refused_beside_a_head(tmp_path, key):
    path = tmp_path / "head.safetensors"
    save_head(make_head(), path)
    assert read_head(path, EvalConfig()).queries == QUERIES
    with pytest.raises(ConfigError, match=f"eval.{key} with model.head: .*; try: leave eval.{key} empty"):
        read_head(path, EvalConfig(**{key: "x"}))


def fitted(tmp_path, features, *, name="transformer", here=None, crop="center", is_temporal=False, **sampling):
    """The scorer with the head of a model's features, through its file, for another model or other settings."""
    model = MODELS[name]()
    source = source_of(model, SAMPLING, features=features, crop="center")
    source |= {"stride_seconds": SAMPLING.stride_seconds} if is_temporal else {}
    save_head(make_head(is_temporal=is_temporal, source=source, width=64), tmp_path / "head.safetensors")
    head = load_head(tmp_path / "head.safetensors")
    corpus = load_head_queries(recording(tmp_path, "packing; hook"), head)
    model, cut = here() if here else model, SAMPLING._replace(**sampling)
    check_fit(head, model, cut, crop=crop, path="head.safetensors")
    return HeadScorer(WindowEncoder(model, cut, "fp32"), head, query_rows(head, corpus), features, AS_CONFIGURED)


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
        ("window", {"crop": "pad"}, "crop center, here pad"),
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
    assert fitted(tmp_path, "window", here=partial(with_other, "temporal"), stride_seconds=2.0).query_rows == (2, 1)
    assert list(fitted(tmp_path, "window", is_temporal=True).rows) == ["", "+temporal"]
    assert fitted(tmp_path, "video", name="ms-xclip").features == "video"


def test_windows_that_a_run_leaves_open_are_the_heads():
    head = make_head()._replace(made={"clip_seconds": 4.0, "frames_per_clip": 8, "stride_seconds": 0.5})
    section = with_sampling(DataConfig(clip_seconds=6.0, crop="pad"), head)
    assert (section.clip_seconds, section.frames_per_clip, section.stride_seconds, section.crop) == (6.0, 8, 0.5, "pad")


@pytest.mark.parametrize("is_temporal", [False, True], ids=["linear", "with a network"])
def test_a_probe_scores_the_rows_of_its_queries(tmp_path, is_temporal):
    model = MODELS["transformer"]()
    scorer = fitted(tmp_path, "frame", is_temporal=is_temporal)
    stored, rows = {"features": np.random.default_rng(0).normal(size=(9, 64)).astype(np.float16)}, grid(6)
    seen = window_features(stored, model, rows=rows, kind="frame", device=CPU, video="v")
    expected = scorer.head.scores(seen)[[2, 1, 7, 6] if is_temporal else [2, 1]].numpy()
    np.testing.assert_array_equal(scorer.scores(stored, rows=rows, device=CPU, video="v"), expected)
