"""The released CLIP4Clip's own numbers (tests/golden/README.md), reproduced for every header."""

from pathlib import Path

import numpy as np
import pytest
import torch

from xclip_module.models import load_checkpoint
from xclip_module.models.official import to_official

GOLDEN = Path(__file__).parent / "golden" / "clip4clip"
HEADERS = {
    "meanP": "mean",
    "seqTransf": "transformer",
    "seqTransf_3layers": "transformer",
    "seqLSTM": "lstm",
    "tightTransf": "tight",
}


def arrays(name):
    path = GOLDEN / f"{name}.npz"
    return {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(path).items()} if path.exists() else {}


@pytest.fixture
def released(tmp_path):
    """Writes a state dict as CLIP4Clip saves it, fp16 CLIP and fp32 header, and loads it."""

    def load(case, extra=None):
        clip = {f"clip.{name}": tensor for name, tensor in arrays("clip_A").items()}
        torch.save(clip | arrays(f"A_{case}_extra_state") | (extra or {}), tmp_path / "pytorch_model.bin.0")
        return load_checkpoint(tmp_path / "pytorch_model.bin.0")

    return load


def embed(model, part):
    inputs = arrays("inputs")
    text = model.encode_text(inputs[f"{part}_input_ids"][:, 0], inputs[f"{part}_attention_mask"][:, 0])
    return text, model.encode_video(inputs[f"{part}_video"][:, 0, :, 0], inputs[f"{part}_video_mask"][:, 0])


@pytest.mark.parametrize("case", HEADERS)
def test_features_and_scores_equal_the_released_code(released, case):
    model, expected = released(case), arrays(f"A_{case}_out")
    assert (model.family, model.spec.header) == ("clip4clip", HEADERS[case])
    with torch.no_grad():
        text, video = embed(model, "eval")
        scores = model.similarity(text, video)
    # Features of size 4: the same few units in the last place as 2e-6 on the unit-length ones.
    torch.testing.assert_close(text.pooled, expected["sequence_output"][:, 0], rtol=0, atol=4e-6)
    torch.testing.assert_close(video.tokens, expected["visual_output"], rtol=0, atol=4e-6)
    torch.testing.assert_close(scores, expected["sim_6x6"], rtol=2e-6, atol=2e-5 if case == "tightTransf" else 2e-6)


@pytest.mark.parametrize("case", HEADERS)
def test_loss_and_gradients_equal_the_released_code(released, case):
    model, expected = released(case), arrays(f"A_{case}_out")
    logits = model.similarity(*embed(model, "train"))
    rows = torch.arange(len(logits))
    loss = sum(torch.nn.functional.cross_entropy(x, rows) for x in (logits, logits.T)) / 2
    loss.backward()
    assert abs(loss.item() - expected["train_loss"].item()) < 5e-6
    gradients = to_official(
        {n: p.grad if p.grad is not None else torch.zeros_like(p) for n, p in model.named_parameters()}
    )
    golden = {name.removeprefix("grad::"): value for name, value in expected.items() if name.startswith("grad::")}
    assert golden
    for name, gradient in golden.items():
        # The absolute part is for similarity_dense.bias: a softmax does not feel it, its gradient is rounding noise.
        assert (gradients[name] - gradient).norm() <= 5e-5 * gradient.norm() + 1e-7, name


def test_three_frame_patches_start_as_the_picture_alone_and_then_see_their_neighbours(released):
    """linear_patch=3d: zero but for the middle time slice, so the released run equals the 2d one."""
    kernel = arrays("clip_A")["visual.conv1.weight"]
    start = torch.stack([torch.zeros_like(kernel), kernel, torch.zeros_like(kernel)], dim=2)  # [width, 3, time, p, p]
    model = released("meanP", {"clip.visual.conv2.weight": start})
    assert not model.reuses_frames
    with torch.no_grad():
        text, video = embed(model, "eval")
        scores = model.similarity(text, video)
    torch.testing.assert_close(scores, arrays("A_meanP_3d_out")["sim_6x6"], rtol=2e-6, atol=2e-6)


def test_three_frame_patches_equal_a_3d_convolution(released):
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(128, 3, 3, 32, 32, generator=generator)  # [width, colour, time, p, p]
    model = released("meanP", {"clip.visual.conv2.weight": kernel})
    frames = torch.randn(2, 5, 3, 64, 64, generator=generator)
    expected = torch.nn.functional.conv3d(
        frames.transpose(1, 2), kernel, stride=(1, 32, 32), padding=(1, 0, 0)
    )  # [B, width, T, 2, 2]
    seen = []
    embedding = model.frame_encoder.tower.vision_model.embeddings.patch_embedding
    embedding.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model.encode_video(frames, torch.ones(2, 5))
    torch.testing.assert_close(seen[0], expected.transpose(1, 2).flatten(0, 1), rtol=1e-4, atol=1e-3)


def test_a_clip_without_a_real_frame_is_refused_not_scored_nan(released):
    model, inputs = released("meanP"), arrays("inputs")
    mask = inputs["eval_video_mask"][:, 0].clone()
    mask[2] = 0
    with pytest.raises(ValueError, match="without a real frame"):
        model.encode_video(inputs["eval_video"][:, 0, :, 0], mask)
