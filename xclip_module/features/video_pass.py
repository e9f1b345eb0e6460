"""Features of many videos: from the store where they are, else from one pass over each file.

N frames that are read of a video, n of a batch, H side of a picture.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from xclip_module.errors import DataError
from xclip_module.features.store import FeatureStore, identity
from xclip_module.interface import PictureReader, PictureStream, Video, check_length
from xclip_module.run.progress import Progress

Arrays = dict[str, np.ndarray]
# From batches of uint8 frames [n, 3, H, H], the number of frames N, the duration in seconds and the video's name.
Encode = Callable[[Iterator[Tensor], int, float, str], Arrays]


def stored_key(video: Video, key: Mapping[str, Any], reading: PictureReader) -> dict[str, Any]:
    """The whole key under which `feature_pass` stores a video's arrays. Raises OSError for a file that is not there."""
    span = {"span": list(video.span)} if video.span else {}
    return {**key, **reading.key(), **span, "video": video.id, "file": identity(video.source)}


def feature_pass(
    videos: Sequence[Video],
    encode: Encode,
    *,
    store: FeatureStore,
    key: Mapping[str, Any],
    reading: PictureReader,
    progress: Progress,
    mapped: bool = False,
) -> Generator[tuple[Video, Arrays | DataError], None, None]:
    """Every video with its arrays, or with the DataError that says why there are none; stored ones come first.

    Closing the generator ends the reading threads.
    The arrays are the encoder's, with "duration" (seconds) and "frames" (N) added.
    key: what the arrays depend on beside the reading and the file (weights, precision, cut of clips).
    mapped: stored arrays stay in their files, see `FeatureStore.load`.
    """
    keys: dict[str, dict[str, Any]] = {}
    unread = []
    for video in videos:
        stored: Arrays | DataError | None
        try:
            keys[video.id] = stored_key(video, key, reading)
            stored = store.load(keys[video.id], mapped=mapped)
            # Labels may have changed since the arrays were stored: they are no part of the key.
            if stored is not None:
                check_length(video, float(stored["duration"]))
        except DataError as error:
            stored = error
        except OSError as error:
            stored = DataError("unreadable video", error.filename, error.strerror or "", f"ls -l {error.filename}")
        if stored is None:
            unread.append(video)
        else:
            progress.advance(1, video.id)
            yield video, stored
    with contextlib.closing(_encoded(unread, encode, reading, progress)) as results:
        for video, result in results:
            # The key is older than the reading: a file replaced in between has another key, and is read again.
            if not isinstance(result, DataError):
                store.save(keys[video.id], result)
            yield video, result


def _encoded(
    videos: Sequence[Video], encode: Encode, reading: PictureReader, progress: Progress
) -> Generator[tuple[Video, Arrays | DataError], None, None]:
    # An exception on its way keeps this frame, and so the threads, alive until it is printed.
    with contextlib.closing(reading.stream(videos)) as streams:
        for video, pictures in streams:
            done = progress.done
            result: Arrays | DataError
            try:
                result = pictures if isinstance(pictures, DataError) else _encode_one(video, pictures, encode, progress)
            except DataError as error:
                result = error
            # A video counts as one, however much of it could be read.
            progress.advance(done + 1 - progress.done)
            yield video, result


def _encode_one(video: Video, pictures: PictureStream, encode: Encode, progress: Progress) -> Arrays:
    duration = round(pictures.duration, 6)
    check_length(video, duration)

    def counted() -> Iterator[Tensor]:
        for batch in pictures.batches:
            yield batch
            progress.advance(len(batch) / pictures.frames, video.id)

    arrays = encode(counted(), pictures.frames, duration, video.id)
    return {**arrays, "duration": np.array(duration), "frames": np.array(pictures.frames)}
