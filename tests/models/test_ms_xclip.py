import pytest
import torch
from support.models_factory import clips, texts, tiny_ms_xclip

from xclip_module.interface import Picture
from xclip_module.models import load_checkpoint
from xclip_module.models.ms_xclip import MicrosoftXClip

PICTURE = Picture(32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def released():
    return tiny_ms_xclip()


@torch.no_grad()
def scores(model, ids, mask, frames):
    return model.similarity(model.encode_text(ids, mask), model.encode_video(frames, torch.ones(frames.shape[:2])))


def test_logits_equal_the_forward_of_transformers(released):
    (ids, mask), (frames, _) = texts(5, 12), clips(3, 4)
    with torch.no_grad():
        expected = released(input_ids=ids, attention_mask=mask.long(), pixel_values=frames).logits_per_text
    ours = scores(MicrosoftXClip(released, PICTURE), ids, mask, frames)
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


def test_a_text_scores_the_same_alone_and_among_others(released):
    model = MicrosoftXClip(released, PICTURE)
    (ids, mask), (frames, _) = texts(5, 12), clips(3, 4)
    together = scores(model, ids, mask, frames)
    alone = torch.cat([scores(model, ids[[row]], mask[[row]], frames) for row in range(5)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


def test_blocks_of_clips_equal_all_at_once(released, monkeypatch):
    model = MicrosoftXClip(released, PICTURE)
    (ids, mask), (frames, _) = texts(5, 12), clips(7, 4)
    together = scores(model, ids, mask, frames)
    monkeypatch.setattr("xclip_module.models.ms_xclip._BLOCK", 2 * 5 * 64)
    torch.testing.assert_close(scores(model, ids, mask, frames), together, rtol=0, atol=1e-5)


def test_a_clip_of_another_length_is_refused_with_both_numbers(released):
    model = MicrosoftXClip(released, PICTURE)
    with pytest.raises(ValueError, match=r"clips of 8 frames.*takes exactly 4 real frames"):
        model.encode_video(clips(2, 8)[0], torch.ones(2, 8))


def test_a_masked_frame_is_refused(released):
    model = MicrosoftXClip(released, PICTURE)
    mask = torch.ones(2, 4)
    mask[1, 3] = 0
    with pytest.raises(ValueError, match="7 of 8 real"):
        model.encode_video(clips(2, 4)[0], mask)


def test_a_saved_folder_loads_with_the_preprocessing_it_names(released, tmp_path):
    released.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}')
    model = load_checkpoint(tmp_path)
    assert (model.family, model.clip_frames, model.reuses_frames) == ("ms-xclip", 4, False)
    assert model.picture == Picture(32, (0.1, 0.2, 0.3), (1, 2, 3))
    (ids, mask), (frames, _) = texts(5, 12), clips(3, 4)
    expected = scores(MicrosoftXClip(released, PICTURE), ids, mask, frames)
    torch.testing.assert_close(scores(model, ids, mask, frames), expected, rtol=0, atol=1e-5)
