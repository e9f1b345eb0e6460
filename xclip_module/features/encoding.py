"""One pass of a model over the frames of a video: every frame, or every clip, goes through the towers once.

N frames of the grid, M clips, F frames of a clip, D width, P patches, H picture side.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from xclip_module.errors import NonFiniteError
from xclip_module.interface import Embeddings, Picture

Batches = Iterable[Tensor]


def to_pixels(frames: Tensor, picture: Picture, device: torch.device) -> Tensor:
    """uint8 [..., 3, H, H] -> normalised float32 on the device: (x / 255 - mean) / std."""
    mean, std = (torch.tensor(x, device=device).view(3, 1, 1) for x in (picture.mean, picture.std))
    return (frames.to(device, non_blocking=True).float() / 255 - mean) / std


@torch.inference_mode()
def encode_frames(
    batches: Batches, encode: Callable[[Tensor], Tensor], *, picture: Picture, device: torch.device, video: str
) -> dict[str, np.ndarray]:
    """{"features": [N, D] float16} from batches of uint8 frames [n, 3, H, H].

    Raises NonFiniteError naming the video.
    """
    # Collected on the device, so that it need not wait for the host between batches.
    parts = [encode(to_pixels(frames, picture, device)) for frames in batches]
    return {"features": _half(torch.cat(parts).cpu(), video)}


@torch.inference_mode()
def encode_clips(
    batches: Batches,
    encode: Callable[[Tensor, Tensor], Embeddings],
    *,
    rows: np.ndarray,
    clips_per_forward: int,
    picture: Picture,
    device: torch.device,
    video: str,
) -> dict[str, np.ndarray]:
    """{"pooled": [M, D], "tokens": [M, P, D]} float16 for models whose frames see each other.

    rows: [M, F] ascending rows of the frame grid; only the frames of unfinished clips are held.
    Raises NonFiniteError naming the video.
    """
    parts: list[Embeddings] = []
    stream = _clips(batches, rows)
    while clips := list(itertools.islice(stream, clips_per_forward)):
        pixels = to_pixels(torch.stack(clips), picture, device)
        mask = torch.ones(pixels.shape[:2], dtype=torch.bool, device=device)
        parts.append(Embeddings(*(x.cpu() for x in encode(pixels, mask))))
    pooled, tokens, _ = (torch.cat(part) for part in zip(*parts, strict=True))
    return {"pooled": _half(pooled, video), "tokens": _half(tokens, video)}


def _clips(batches: Batches, rows: np.ndarray) -> Iterator[Tensor]:
    """Each clip [F, 3, H, H] as soon as its last frame has come."""
    held: dict[int, Tensor] = {}
    clip, seen = 0, 0
    for frames in batches:
        for frame in frames:
            held[seen] = frame
            seen += 1
            while clip < len(rows) and rows[clip, -1] < seen:
                yield torch.stack([held[row] for row in rows[clip]])
                clip += 1
                first = rows[clip, 0] if clip < len(rows) else seen
                held = {row: kept for row, kept in held.items() if row >= first}


def _half(values: Tensor, video: str) -> np.ndarray:
    half = values.to(torch.float16)
    if not torch.isfinite(half).all():
        raise NonFiniteError("features are not finite", video, "NaN or beyond float16", "--run.precision=fp32")
    return half.numpy()
