"""Random views of a clip: one crop, one flip and one change of colour for all of its frames.

Letters: T frames, S side of the stored square.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

_GREY = np.array([0.299, 0.587, 0.114])
# RGB to luma and two axes of colour (YIQ, FCC 1953): turning those two turns the hue and leaves grey and luma alone.
_YIQ = np.array([_GREY, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RATIO = 4 / 3  # sides of a crop, either way; as in torchvision's RandomResizedCrop


class Augmentation(NamedTuple):
    """How much clips are varied.

    size: side of what comes out, in pixels.  crop_scale: least share of the area that a crop keeps, 1 = no crop.
    flip: share of clips that are mirrored.  colour: brightness, contrast and saturation change by factors in
    1 - colour .. 1 + colour, the hue by up to colour / 10 of the circle, either way.
    """

    size: int
    crop_scale: float = 1.0
    flip: float = 0.0
    colour: float = 0.0


def augment(clip: Tensor, settings: Augmentation, *, seed: tuple[int, ...]) -> Tensor:
    """A view [T, 3, size, size] uint8 of a clip [T, 3, S, S] uint8: a function of `seed` (words >= 0) alone.

    Nothing asked for: the whole square, resized (bicubic, antialiased) where it has another size, else the clip itself.
    """
    rng = np.random.default_rng(seed)
    # All is drawn whatever is used, so that one setting does not change the draws of another.
    crop = _draw_crop(rng, clip.shape[-1], settings.crop_scale)
    is_mirrored = rng.random() < settings.flip
    brightness, contrast, saturation, hue = rng.uniform(-1, 1, 4) * settings.colour
    size = [settings.size, settings.size]
    if crop[2:] != (settings.size, settings.size):
        clip = v2.functional.resized_crop(clip, *crop, size, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    else:
        clip = v2.functional.crop(clip, *crop)
    if is_mirrored:
        clip = v2.functional.horizontal_flip(clip)
    if settings.colour:
        clip = recolour(clip, brightness=1 + brightness, contrast=1 + contrast, saturation=1 + saturation, hue=hue / 10)
    return clip


def recolour(clip: Tensor, *, brightness: float, contrast: float, saturation: float, hue: float) -> Tensor:
    """A clip [T, 3, H, W] uint8 with other colours; factors of 1 and a hue of 0 (of the circle) change nothing.

    As torchvision's v2.functional.adjust_brightness, _contrast and _saturation in this order, then the hue, but as one
    affine map of colours without rounding in between: eight times faster, of which the hue is most. Contrast is about
    the mean grey of the whole clip (there: of each picture), so a colour becomes the same colour in every frame; the
    hue is turned about the grey axis (there: in HSV).
    """
    turn = np.eye(3)
    cosine, sine = math.cos(2 * math.pi * hue), math.sin(2 * math.pi * hue)
    turn[1:, 1:] = [[cosine, sine], [-sine, cosine]]
    to_grey = np.tile(_GREY, (3, 1))
    saturate = saturation * np.eye(3) + (1 - saturation) * to_grey
    colours = contrast * brightness * np.linalg.inv(_YIQ) @ turn @ _YIQ @ saturate
    pixels = clip.contiguous().flatten(2)  # [T, 3, H * W]
    # Whole numbers, whose sum does not depend on how many threads add.
    mean = pixels.sum(dim=2, dtype=torch.int32).double().mean(dim=0).numpy() / pixels.shape[2]
    matrix = torch.from_numpy(colours).float().expand(len(clip), 3, 3)
    offset = torch.tensor((1 - contrast) * brightness * float(_GREY @ mean), dtype=torch.float32)
    changed = torch.baddbmm(offset, matrix, pixels.float())
    return changed.round_().clamp_(0, 255).to(torch.uint8).view(clip.shape)


def _draw_crop(rng: np.random.Generator, side: int, scale: float) -> tuple[int, int, int, int]:
    """Top, left, height and width of a rectangle in a square, of at least the share `scale` of it."""
    share = rng.uniform(scale, 1)
    # Narrower limits where 4:3 of this area would not fit.
    reach = math.log(min(_RATIO, 1 / share))
    ratio = math.exp(rng.uniform(-reach, reach))
    height, width = round(side * math.sqrt(share / ratio)), round(side * math.sqrt(share * ratio))
    top, left = (int(rng.integers(side - length + 1)) for length in (height, width))
    return top, left, height, width
