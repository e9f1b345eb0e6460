"""The square picture is CLIP's own, compared with PIL."""

import numpy as np
import pytest
from PIL import Image

from xclip_module.video.transform import to_square


def test_the_center_crop_is_clips_own_within_one_grey_level():
    for height, width in [(480, 854), (854, 480), (240, 320), (121, 161), (224, 224), (100, 60)]:
        frame = np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)
        short = min(height, width)
        inner = [int(224 * side / short) for side in (width, height)]
        left, top = (round((side - 224) / 2) for side in inner)
        resized = Image.fromarray(frame).resize(inner, Image.Resampling.BICUBIC)
        reference = np.asarray(resized.crop((left, top, left + 224, top + 224)), int)
        square = to_square(frame, size=224, crop="center")
        assert tuple(square.shape) == (3, 224, 224)
        assert np.abs(square.permute(1, 2, 0).numpy() - reference).max() <= 1


def test_squash_keeps_everything_and_pad_keeps_the_shape():
    frame = np.random.default_rng(0).integers(1, 256, (48, 96, 3)).astype(np.uint8)
    squashed = np.asarray(Image.fromarray(frame).resize((32, 32), Image.Resampling.BICUBIC), int)
    assert np.abs(to_square(frame, size=32, crop="squash").permute(1, 2, 0).numpy() - squashed).max() <= 1
    padded = to_square(frame, size=32, crop="pad").permute(1, 2, 0).numpy()
    inner = np.asarray(Image.fromarray(frame).resize((32, 16), Image.Resampling.BICUBIC), int)
    assert np.abs(padded[8:24] - inner).max() <= 1
    assert not padded[:8].any()
    assert not padded[24:].any()
    with pytest.raises(ValueError, match="center"):
        to_square(frame, size=32, crop="middle")
