"""What a probe sees of a video's stored features."""

import numpy as np
import pytest
import torch
from support.heads_factory import CPU, MODELS, grid
from support.models_factory import clips, tiny_two_tower

from xclip_module.errors import NonFiniteError
from xclip_module.features.scoring import known_features, window_features

pytestmark = pytest.mark.usefixtures("one_thread")


def test_clips_of_three_frame_patches_are_probed_whole():
    assert known_features(tiny_two_tower(patch_frames=3)) == ("video",)


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
