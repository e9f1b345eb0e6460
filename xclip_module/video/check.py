"""Every video opened and held against its labels, on request decoded from end to end."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from xclip_module.errors import DataError
from xclip_module.interface import Video, check_length
from xclip_module.video.readers import read_frames
from xclip_module.video.reading import Reading


def check_videos(videos: Sequence[Video], reading: Reading, *, is_deep: bool) -> Iterator[tuple[Video, str]]:
    """Each video, in order, with what is wrong with it, "" for nothing.

    is_deep: decodes every frame, which also finds damage in the middle of a file.
    """

    def check(video: Video) -> str:
        try:
            source = reading.open(video)
            check_length(video, source.duration)
            if is_deep:
                for _ in read_frames(
                    source, source.times, decoder=reading.decoder, timeout_seconds=reading.timeout_seconds
                ):
                    pass
        except DataError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(reading.thread_count()) as pool:
        yield from zip(videos, pool.map(check, videos), strict=True)
