"""The pass that every task makes over its videos: features from the store where they are, else encoded once."""

import contextlib
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from xclip_module.config import DataConfig, FinetuneConfig
from xclip_module.errors import DataError
from xclip_module.features.encoding import encode_frames
from xclip_module.features.store import FeatureStore
from xclip_module.features.video_pass import Arrays, Encode, feature_pass
from xclip_module.interface import Video, VideoTextModel
from xclip_module.run import distributed, precision
from xclip_module.run.folder import Run
from xclip_module.run.progress import Progress
from xclip_module.video.reading import Reading

_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


class Encoding(NamedTuple):
    """How videos become stored arrays.

    encode: the arrays from a video's frames.  key: what they depend on beside the file and the reading.
    skip_unreadable: leave out what cannot be read, instead of ending the run.
    """

    encode: Encode
    key: Mapping[str, Any]
    reading: Reading
    store: FeatureStore
    skip_unreadable: bool


def reading_of(data: DataConfig, *, fps: float, size: int, batch: int) -> Reading:
    """How files are read: `fps` pictures a second of `size` pixels a side in batches, the rest as configured."""
    return Reading(
        fps=fps,
        size=size,
        crop=data.crop,
        batch=batch,
        decoder=data.decoder,
        threads=data.decode_threads,
        timeout_seconds=data.decode_timeout_seconds,
    )


def feature_store(data: DataConfig, *, root: str) -> FeatureStore:
    """The configured store of features; root: the folder of all runs."""
    return FeatureStore(Path(data.features or Path(root) / "features"))


def frame_store(section: FinetuneConfig, *, root: str) -> FeatureStore:
    """The configured store of training and validation frames; root: the folder of all runs."""
    return FeatureStore(Path(section.cache or Path(root) / "frames"))


def stored_key(model: VideoTextModel, chosen: str) -> dict[str, Any]:
    """What stored arrays depend on beside file and reading; `chosen` is the precision."""
    return {"weights": model.stored_digest(), "picture": list(model.picture), "precision": chosen}


def stored_videos(
    videos: Sequence[Video],
    encoding: Encoding,
    *,
    run: Run,
    skipped: dict[str, str],
    check: Callable[[Video, Arrays], Any] = lambda video, arrays: None,
) -> Generator[tuple[Video, Arrays], None, None]:
    """Each video with its stored arrays, encoded first where there are none; to be closed after use.

    skipped: takes up the videos that cannot be used, where that is allowed; else their DataError is raised.
    check: raises DataError for arrays that cannot be used.
    """
    encode, key, reading, store, _ = encoding
    with (
        Progress(len(videos), name="videos", unit="videos", is_shown=run.world.is_main) as progress,
        # Closed here and not some time later: threads that decode while the interpreter goes down abort it.
        contextlib.closing(
            feature_pass(videos, encode, store=store, key=key, reading=reading, progress=progress)
        ) as passing,
    ):
        for video, arrays in passing:
            try:
                if isinstance(arrays, DataError):
                    raise arrays
                check(video, arrays)
            except DataError as error:
                if not encoding.skip_unreadable:
                    raise
                log.warning("left out: %s", error)
                skipped[video.id] = str(error)
            else:
                yield video, arrays


def of_all_videos(
    videos: Sequence[Video],
    encoding: Encoding,
    use: Callable[[Video, Arrays], _Result],
    *,
    run: Run,
    check: Callable[[Video, Arrays], Any] = lambda video, arrays: None,
) -> tuple[dict[str, _Result], dict[str, str]]:
    """What `use` makes of each video by its id, and the videos left out with the reason; see `stored_videos`.

    Every process takes its share of the videos and gets everyone's results.
    """
    results: dict[str, _Result] = {}
    skipped: dict[str, str] = {}
    share = distributed.shard(videos, run.world)
    with contextlib.closing(stored_videos(share, encoding, run=run, skipped=skipped, check=check)) as passing:
        for video, arrays in passing:
            results[video.id] = use(video, arrays)
    shares = distributed.gather((results, skipped), run.world)
    return (
        {name: result for results, _ in shares for name, result in results.items()},
        {name: why for _, skipped in shares for name, why in skipped.items()},
    )


def frame_encoder(
    model: VideoTextModel, device: torch.device, check: Callable[[int, float, str], Any] = lambda *facts: None
) -> Encode:
    """Features of separately encoded frames. check: refuses a video by frames, seconds and name, before the work."""

    def encode(batches: Iterator[Tensor], frames: int, duration: float, video: str) -> Arrays:
        check(frames, duration, video)
        return encode_frames(batches, model.encode_frames, picture=model.picture, device=device, video=video)

    return encode


def in_precision(function: Callable, chosen: str, device: torch.device) -> Callable:
    """`function` with its towers in the chosen precision; a whole pass at once casts the weights only once."""

    def call(*arguments: Any) -> Any:
        with torch.inference_mode(), precision.autocast(chosen, device):
            return function(*arguments)

    return call
