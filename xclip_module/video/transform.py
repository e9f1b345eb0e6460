"""How a picture becomes the square that CLIP sees."""

import numpy as np
import torch
from torchvision.transforms import v2

CROPS = ("center", "squash", "pad", "mmaction2")


def to_square(frame: np.ndarray, *, size: int, crop: str = "center") -> torch.Tensor:
    """A picture [H, W, 3] uint8 as a square [3, size, size] uint8, by bicubic resampling with antialiasing.

    center: short side to `size`, then the middle (CLIP's own preprocessing; 16:9 loses its sides).
    mmaction2: short side to 8/7 `size` (256 for 224) by bilinear resampling without antialiasing, then the middle;
    within 1 grey level of OpenCV's, which MMAction2 uses (mmaction/datasets/transforms/processing.py, Resize(-1, 256)).
    squash: both sides to `size`, everything kept, shapes distorted.  pad: long side to `size`, black bars.
    Source: Radford et al. 2021, openai/CLIP clip.py `_transform`; within 1 grey level of it (PIL's bicubic).
    """
    if crop not in CROPS:
        raise ValueError(f"crop {crop!r}, expected one of {CROPS}")
    height, width = frame.shape[:2]
    picture = torch.from_numpy(frame).permute(2, 0, 1)
    if crop == "squash":
        picture = _resize(picture, [size, size])
    elif crop == "mmaction2":
        scale = round(size * 8 / 7) / min(height, width)
        inner = [int(side * scale + 0.5) for side in (height, width)]
        bilinear = v2.functional.resize(picture, inner, interpolation=v2.InterpolationMode.BILINEAR, antialias=False)
        # Of an odd rest it cuts the smaller half first, torchvision's own crop the larger one.
        top, left = (inner[0] - size) // 2, (inner[1] - size) // 2
        picture = bilinear[:, top : top + size, left : left + size]
    elif crop == "center":
        picture = v2.functional.center_crop(_resize(picture, [size]), [size, size])
    else:
        scale = size / max(height, width)
        inner = [max(round(side * scale), 1) for side in (height, width)]
        top, left = ((size - side) // 2 for side in inner)
        borders = [left, top, size - inner[1] - left, size - inner[0] - top]
        picture = v2.functional.pad(_resize(picture, inner), borders)
    # NumPy copies on one thread; torch would wake its pool in every reading thread.
    return torch.from_numpy(np.ascontiguousarray(picture.numpy()))


def _resize(picture: torch.Tensor, shape: list[int]) -> torch.Tensor:
    return v2.functional.resize(picture, shape, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
