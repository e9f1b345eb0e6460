import gc

import numpy as np
import pytest
import torch
from support.models_factory import clips, texts, tiny_ms_xclip, tiny_two_tower

from xclip_module.errors import NonFiniteError
from xclip_module.evaluation.frames import labels_at, rank_pair
from xclip_module.features.encoding import encode_clips, encode_frames, to_pixels
from xclip_module.features.scoring import check_finite, score_stored
from xclip_module.interface import Embeddings, Picture
from xclip_module.models.ms_xclip import MicrosoftXClip

CPU = torch.device("cpu")
PICTURE = Picture(32, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


def video(frames=11, seed=0):
    return torch.randint(0, 256, (frames, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_pixels_are_scaled_and_normalised_per_colour():
    frames = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    expected = [[(x - m) / s for m, s in zip(PICTURE.mean, PICTURE.std, strict=True)] for x in (0, 1)]
    torch.testing.assert_close(to_pixels(frames, PICTURE, CPU)[..., 0, 0], torch.tensor(expected))


@pytest.mark.parametrize("changes", [{}, {"header": "transformer", "header_layers": 2}])
def test_scores_from_stored_frames_equal_scoring_every_clip_from_its_pixels(changes):
    """The whole short cut (encode once, slice, score) beside the long way round."""
    model, frames = tiny_two_tower(**changes), video()
    rows = np.array([[0, 1, 2, 3, 4], [3, 4, 5, 6, 7], [6, 7, 8, 9, 10]])
    ids, mask = texts(4, 10)
    stored = encode_frames(frames.split(4), model.encode_frames, picture=PICTURE, device=CPU, video="x")
    assert stored["features"].dtype == np.float16
    with torch.no_grad():
        text = model.encode_text(ids, mask)
        ours = score_stored(stored, text, model, rows=rows, device=CPU)
        pixels = to_pixels(frames, PICTURE, CPU)[torch.from_numpy(rows)]
        expected = model.similarity(text, model.encode_video(pixels, torch.ones(rows.shape)))
    assert ours.shape == (4, 3)
    # float16 storage: 2^-11 of features that the softmax of temperature 0.01 sharpens.
    np.testing.assert_allclose(ours, expected.numpy(), atol=0.05)


@pytest.mark.parametrize("batch", [1, 3, 11])
def test_clips_of_a_model_whose_frames_see_each_other_are_cut_from_the_stream(batch):
    model, frames = MicrosoftXClip(tiny_ms_xclip(), PICTURE), video()
    rows = np.array([[0, 1, 2, 3], [0, 1, 2, 3], [2, 3, 4, 5], [7, 8, 9, 10]])
    stored = encode_clips(
        frames.split(batch), model.encode_video, rows=rows, clips_per_forward=3, picture=PICTURE, device=CPU, video="x"
    )
    with torch.no_grad():
        expected = model.encode_video(to_pixels(frames, PICTURE, CPU)[torch.from_numpy(rows)], torch.ones(4, 4))
    np.testing.assert_allclose(stored["pooled"], expected.pooled.numpy(), rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(stored["tokens"], expected.tokens.numpy(), rtol=2e-3, atol=2e-3)


def test_only_the_frames_of_unfinished_clips_are_held():
    held = []

    def frames():
        for number in range(1000):
            yield torch.full((1, 3, 2, 2), number % 256, dtype=torch.uint8)

    def encode(pixels, mask):
        held.append(sum(type(x) is torch.Tensor and x.shape == (3, 2, 2) for x in gc.get_objects()))
        return Embeddings(pixels[:, 0, :, 0, 0], pixels[:, :, :, 0, 0], mask)

    rows = np.arange(0, 990, 5)[:, None] + np.arange(8)
    gc.freeze()  # what is there already is not looked through each time
    try:
        encode_clips(frames(), encode, rows=rows, clips_per_forward=4, picture=PICTURE, device=CPU, video="x")
    finally:
        gc.unfreeze()
    assert 8 <= max(held) < 30


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_features_beyond_half_precision_end_the_run_with_the_videos_name(value):
    with pytest.raises(NonFiniteError, match="not finite: video07") as caught:
        encode_frames([video(2)], lambda x: torch.full((2, 4), value), picture=PICTURE, device=CPU, video="video07")
    assert caught.value.exit_code == 8


def test_scores_that_are_not_finite_are_refused():
    check_finite(np.zeros((2, 2)), "x")
    with pytest.raises(NonFiniteError, match="x: 1 of 4"):
        check_finite(np.array([[0, 1], [2, np.inf]]), "x")


def test_labels_hold_from_start_up_to_but_not_at_the_end():
    times = np.array([0.0, 1.0, 1.5, 2.0, 5.0])
    assert labels_at(times, [(1.0, 2.0), (5.0, 6.0)]).tolist() == [False, True, True, False, True]
    assert not labels_at(times, []).any()


def test_ranking_of_a_pair_is_worked_by_hand():
    """Positives at ranks 1 and 3 of 4: AUROC 3/4, AP (1 + 2/3) / 2."""
    pair = rank_pair(np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, False]))
    assert pair == pytest.approx((0.75, 5 / 6, 0.5))


@pytest.mark.parametrize("labels", [[True, True], [False, False]])
def test_a_pair_without_both_kinds_of_samples_is_left_out_not_half(labels):
    assert rank_pair(np.array([0.1, 0.2]), np.array(labels)) is None


def test_clip_helper_makes_ragged_masks():
    """The factory's promise, on which the masked tests stand."""
    frames, mask = clips(6, 5, is_ragged=True)
    assert 0 < (~mask).sum() < mask.numel()
    assert (frames[~mask] == 0).all()
