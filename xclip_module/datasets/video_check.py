"""Every video opened and held against its labels, on request decoded from end to end."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from xclip_module.errors import DataError
from xclip_module.features.stored_frames import open_source
from xclip_module.features.video_pass import Reading, check_length, default_threads
from xclip_module.interface import Video
from xclip_module.video.readers import choose_reader, read_with


def check_videos(videos: Sequence[Video], reading: Reading, *, is_deep: bool) -> Iterator[tuple[Video, str]]:
    """Each video, in order, with what is wrong with it, "" for nothing.

    is_deep: decodes every frame, which also finds damage in the middle of a file.
    """

    def check(video: Video) -> str:
        try:
            source = open_source(video, reading)
            check_length(video, source.duration)
            if is_deep:
                reader = choose_reader(source, reading.decoder)
                for _ in read_with(reader, source, source.times, timeout_seconds=reading.timeout_seconds):
                    pass
        except DataError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(reading.threads or default_threads()) as pool:
        yield from zip(videos, pool.map(check, videos), strict=True)
