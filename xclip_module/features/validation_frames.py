"""The pictures of validation, decoded once: exactly the pixels that scoring sees.

N frames of a video, S side of the model's picture.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from xclip_module.features.stored_frames import Content, FrameStorage, StoredFrames, open_frames
from xclip_module.features.video_pass import Arrays
from xclip_module.interface import AnyGrid, Video


def validation_frames(videos: Sequence[Video], storage: FrameStorage, *, grid: AnyGrid) -> StoredFrames:
    """This process's share of the videos, each with "pictures" [N, 3, S, S] uint8 of every grid frame, still on disk.

    storage.reading is the one that scoring uses: frames of the clips, size of the model's picture.
    Memory: while a video is made, twice its pictures (3 * S * S bytes each). Raises as `open_frames`.
    """
    return open_frames(videos, picture_content(), storage, grid=grid, is_shared=False)


def batches_of(pictures: np.ndarray, size: int) -> Iterator[Tensor]:
    """Stored pictures [N, 3, S, S] as batches of up to `size`, as a reader would give them."""
    for start in range(0, len(pictures), size):
        yield torch.from_numpy(pictures[start : start + size])


def picture_content() -> Content:
    """What is stored of a validation video."""
    return Content("validation frames", {"kind": "pictures"}, _to_array)


def _to_array(batches: Iterator[Tensor], frames: int) -> Arrays:
    first = next(batches)
    # Filled batch by batch: joined at the end, the pictures would be in memory once more.
    pictures, start = np.empty((frames, *first.shape[1:]), np.uint8), 0
    for batch in itertools.chain([first], batches):
        pictures[start : start + len(batch)] = batch.numpy()
        start += len(batch)
    assert start == frames, "a reader gives every frame that it was asked for"
    return {"pictures": pictures}
