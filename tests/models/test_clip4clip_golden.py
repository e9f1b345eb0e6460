"""The released CLIP4Clip's own numbers (tests/golden/README.md), reproduced for every header."""

import datetime
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_training import StepCalls
from torch.multiprocessing import spawn

from xclip_module.interface import Batch
from xclip_module.models import load_checkpoint
from xclip_module.models.official import to_official
from xclip_module.run.collectives import average_gradients
from xclip_module.run.distributed import World, share
from xclip_module.training.grad_cache import backward

GOLDEN = Path(__file__).parents[1] / "golden" / "clip4clip"
# A folder of complete cases, larger than the repository carries; see golden/README.md.
FULL = Path(os.environ.get("CLIP4CLIP_GOLDEN", "nowhere"))
HEADERS = {
    "meanP": "mean",
    "meanP_3d": "mean",
    "seqTransf": "transformer",
    "seqTransf_3layers": "transformer",
    "seqLSTM": "lstm",
    "tightTransf": "tight",
}


def arrays(name, folder=GOLDEN):
    path = folder / f"{name}.npz"
    return {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(path).items()} if path.exists() else {}


@pytest.fixture
def released(tmp_path):
    """Writes a state dict as CLIP4Clip saves it, fp16 CLIP and fp32 header, and loads it."""

    def load(case, extra=None):
        return load_released(tmp_path / "pytorch_model.bin.0", case, extra)

    return load


def load_released(file, case, extra=None):
    clip = {f"clip.{name}": tensor for name, tensor in arrays("clip_A").items()}
    if case == "meanP_3d":
        # How a released training starts: zero but for the middle time slice.
        kernel = clip["clip.visual.conv1.weight"]
        slices = [torch.zeros_like(kernel), kernel, torch.zeros_like(kernel)]
        clip["clip.visual.conv2.weight"] = torch.stack(slices, dim=2)  # [width, 3, time, p, p]
    torch.save(clip | arrays(f"A_{case}_extra_state") | (extra or {}), file)
    return load_checkpoint(file)


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
    """Some gradients number by number, every parameter's by its norm."""
    model, expected = released(case), arrays(f"A_{case}_out")
    summary = json.loads((GOLDEN / f"A_{case}.json").read_text())
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
    idle = set(summary["params_without_grad"])
    assert {name for name, gradient in gradients.items() if not gradient.any()} == idle & set(gradients)
    assert set(gradients) | idle == set(summary["grad_norms"]) | idle
    for name, norm in summary["grad_norms"].items():
        assert gradients[name].norm().item() == pytest.approx(norm, rel=5e-5, abs=1e-7), name


def test_three_frame_patches_start_as_the_picture_alone(released):
    """linear_patch=3d: the released run equals the 2d one."""
    assert not released("meanP_3d").reuses_frames
    golden = arrays("A_meanP_3d_out")["sim_6x6"], arrays("A_meanP_out")["sim_6x6"]
    torch.testing.assert_close(*golden, rtol=0, atol=2e-6)


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


def test_a_clip_without_a_real_frame_spoils_its_own_column_only_in_the_released_code(released):
    """And what it says of all others is what we say."""
    model, inputs, golden = released("meanP"), arrays("inputs"), arrays("A_meanP_empty_video")
    mask = golden["video_mask"][:, 0]
    real = mask.bool().any(dim=1)
    assert real.tolist() == [True, True, False, True, True, True]
    assert golden["sim_6x6"][:, ~real].isnan().all()
    with torch.no_grad():
        text = model.encode_text(inputs["eval_input_ids"][:, 0], inputs["eval_attention_mask"][:, 0])
        video = model.encode_video(inputs["eval_video"][real, 0, :, 0], mask[real])
        scores = model.similarity(text, video)
    torch.testing.assert_close(scores, golden["sim_6x6"][:, real], rtol=2e-6, atol=2e-6)


def test_float32_towers_agree_with_the_released_float16_ones_up_to_their_rounding(released):
    """Differs: the released code computes in fp16 what is stored in fp16; we do so only under autocast."""
    model, golden = released("meanP"), arrays("A_meanP_fp16weights_out")
    with torch.no_grad():
        text, video = embed(model, "eval")
        scores = model.similarity(text, video)
    gap = (golden["sim_6x6"] - arrays("A_meanP_out")["sim_6x6"]).abs().max()
    assert 5e-3 < gap < 6e-3
    assert (scores - golden["sim_6x6"]).abs().max() < gap + 4e-6


def released_share(file, rank, size, store):
    """Loss and gradients of one process of a world that trains on the six released pairs."""
    model, inputs = load_released(file, "meanP"), arrays("inputs")
    world, rows = World(rank, size, torch.device("cpu")), share(6, rank, size)
    own = torch.eye(6, dtype=torch.bool)
    batch = Batch(
        frames=inputs["train_video"][rows.start : rows.stop, 0, :, 0],
        shown=inputs["train_video_mask"][rows.start : rows.stop, 0].bool(),
        start=rows.start,
        input_ids=inputs["train_input_ids"][:, 0],
        mask=inputs["train_attention_mask"][:, 0],
        sentences=torch.arange(6),
        positives=own,
        unknown=own & False,
        names=("",) * 6,
    )

    if size > 1:
        patience = datetime.timedelta(seconds=120)
        options = {"init_method": f"file://{store}", "rank": rank, "world_size": size, "timeout": patience}
        torch.distributed.init_process_group("gloo", **options)
    try:
        options = {"loss": "infonce", "micro_batch_size": 6, "world": world, "scale": lambda loss: loss, "seed": 0}
        loss = backward(batch, StepCalls.of(model), **options).loss
        average_gradients(model.parameters(), world)
    finally:
        if size > 1:
            torch.distributed.destroy_process_group()
    return loss, to_official({name: parameter.grad for name, parameter in model.named_parameters()})


def other_share(number, file, store):
    torch.set_num_threads(1)
    released_share(file.with_suffix(".other"), 1 + number, 2, store)


@pytest.mark.skipif(not FULL.is_dir(), reason="needs CLIP4CLIP_GOLDEN with the gradients of one and two processes")
@pytest.mark.parametrize("size", [1, 2])
def test_any_number_of_processes_gives_the_released_codes_single_process_gradient(tmp_path, size):
    """Differs: its two processes' gradients add up to the whole one for encoders, and to twice it for the scale."""
    golden = arrays("A_meanP_allgather_grads", FULL)
    expected = json.loads((FULL / "A_meanP_allgather.json").read_text())
    other = spawn(other_share, (tmp_path / "model.bin", tmp_path / "store"), nprocs=1, join=False) if size > 1 else None
    loss, gradients = released_share(tmp_path / "model.bin", 0, size, tmp_path / "store")
    if other is not None:
        other.join()
    assert loss == pytest.approx(expected["world1_rank0_loss"], abs=5e-6)
    assert expected["world2_rank0_loss"] == expected["world2_rank1_loss"] == expected["world1_rank0_loss"]
    whole = {key.split("::")[1]: value for key, value in golden.items() if key.startswith("world1")}
    assert len(whole) == 5
    for name, gradient in whole.items():
        assert (gradients[name] - gradient).norm() <= 5e-5 * gradient.norm() + 1e-7, name
        both = golden[f"world2_rank0::{name}"] + golden[f"world2_rank1::{name}"]
        factor = 2 if name == "clip.logit_scale" else 1
        torch.testing.assert_close(both, factor * gradient, rtol=1e-4, atol=1e-6)
