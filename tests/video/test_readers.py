"""Reading videos: the right frame, whatever the container; one clear line for what cannot be read."""

import logging
import os
import re
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from support import barcode

from xclip_module.errors import DataError
from xclip_module.video import decord_reader, pyav_reader
from xclip_module.video.frame_choice import frames_on_show
from xclip_module.video.inspect import probe
from xclip_module.video.readers import choose_reader, decoder_version, frame_times, fresh_starts, read_frames

UNEVEN = np.cumsum([0, *([0.02, 0.04, 0.12, 0.5, 0.04] * 30)])[:150].tolist()
OPEN = {"x264-params": "open-gop=1"}
X265_CLOSED = {"x265-params": "keyint=30:bframes=3:open-gop=0:scenecut=0:log-level=none:pools=1:frame-threads=1"}
X265_LAYERS = {"x265-params": "keyint=60:bframes=4:temporal-layers=3:log-level=none:pools=1:frame-threads=1"}
ALL_KEYS = {"x264-params": "keyint-min=1:scenecut=400"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
VP9 = {"deadline": "realtime", "cpu-used": "8"}

# name: (how it is written, whether decord may read it)
VARIANTS: dict[str, tuple[dict, bool]] = {
    "plain.mp4": ({}, True),
    "plain.mkv": ({}, True),
    "gop25.mp4": ({"gop": 25}, True),
    "gop25.mkv": ({"gop": 25}, True),
    "intra.mp4": ({"gop": 1}, True),
    "no_b.mp4": ({"gop": 12, "bframes": 0}, True),
    "pyramid.mp4": ({"gop": 60, "bframes": 7, "options": {"x264-params": "b-pyramid=normal:ref=4"}}, True),
    "open.mp4": ({"gop": 25, "options": OPEN}, False),
    "open.mkv": ({"gop": 25, "options": OPEN}, False),
    "refresh.mp4": ({"gop": 25, "bframes": 0, "options": {"x264-params": "intra-refresh=1"}}, False),
    "short_gops.mp4": ({"gop": 2, "times": UNEVEN, "container_options": FRAGMENTS, "options": ALL_KEYS}, False),
    "interlaced.mp4": ({"options": {"x264-params": "tff=1"}}, True),
    "uneven.mp4": ({"times": UNEVEN}, True),
    "uneven.mkv": ({"times": UNEVEN}, True),
    "fragments.mp4": ({"gop": 25, "container_options": FRAGMENTS}, True),
    "faststart.mp4": ({"container_options": {"movflags": "faststart"}}, True),
    "long_audio.mp4": ({"audio_seconds": 9}, True),
    "odd_444.mp4": ({"size": (161, 121), "pix_fmt": "yuv444p"}, True),
    "odd_vp9.webm": ({"size": (161, 121), "codec": "libvpx-vp9", "gop": 40, "options": VP9}, True),
    "odd_mpeg4.mp4": ({"size": (161, 121), "codec": "mpeg4", "gop": 40}, True),
    "mpeg4_b.mp4": ({"codec": "mpeg4", "gop": 40, "options": {"bf": "2"}}, False),
    "hevc_open.mp4": ({"codec": "libx265", "gop": 30}, False),
    "hevc_open.mkv": ({"codec": "libx265", "gop": 30}, False),
    "hevc.mp4": ({"codec": "libx265", "options": X265_CLOSED}, True),
    "hevc_layers.mp4": ({"codec": "libx265", "options": X265_LAYERS}, False),
    "plain.ts": ({"gop": 25}, False),
    "open.ts": ({"gop": 25, "options": OPEN}, False),
    "plain.avi": ({"gop": 50}, False),
    "mpeg4.avi": ({"codec": "mpeg4"}, False),
    "mpeg2.mpg": ({"codec": "mpeg2video", "gop": 40, "options": {"bf": "2"}}, False),
    "one.mp4": ({"frames": 1}, True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def textured(folder):
    """Noise in every frame, so that any decoding difference shows in the pixels; 12 s with B-frames."""
    return barcode.write_video(folder / "textured.mp4", frames=300, size=(160, 96), gop=100, bframes=5, texture=30)


def written(folder: Path, name: str) -> tuple[Path, list[float]]:
    """The variant and the second at which each of its frames comes on show."""
    how = {"frames": 150, **VARIANTS[name][0]}
    path = folder / name
    if not path.exists():
        barcode.write_video(path, **how)
    return path, how.get("times") or [index / 25 for index in range(how["frames"])]


def expected(shown: list[float], times: np.ndarray) -> list[int]:
    """The number on show at each time, found the slow way; a time stamp may be rounded to milliseconds."""
    return [max([number for number, second in enumerate(shown) if second <= time + 1e-3]) for time in times]


def grids(duration: float) -> list[np.ndarray]:
    scattered = np.sort(np.random.default_rng(0).uniform(0, duration, 7))
    return [*(frame_times(duration, fps) for fps in (1, 2, 0.25, 25)), scattered]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_picture_shows_the_number_that_was_on_show_at_its_time(folder, name):
    path, shown = written(folder, name)
    info = probe(path)
    np.testing.assert_allclose(info.times, shown, atol=1.01e-3)
    for times in grids(info.duration):
        assert [barcode.read_number(picture) for picture in read_frames(info, times)] == expected(shown, times)


@pytest.mark.parametrize("name", VARIANTS)
def test_decord_reads_the_same_numbers_or_is_refused(folder, name):
    path, shown = written(folder, name)
    info = probe(path)
    assert (decord_reader.refusal(info) == "") == VARIANTS[name][1], info.decord_refusal
    for times in grids(info.duration):
        numbers = [barcode.read_number(picture) for picture in read_frames(info, times, decoder="decord")]
        assert numbers == expected(shown, times)


@pytest.mark.parametrize("name", ["plain.mp4", "gop25.mp4", "open.mp4"])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_stream_copied_cut_shows_the_frames_of_its_time_span(folder, name, container):
    source, _ = written(folder, name)
    # mp4 hides the run-up from the key frame behind an edit list, mkv shows it.
    first = 55 if container == "mp4" else 0 if name == "plain.mp4" else 50
    for stop in (3.0, 5.1):
        info = probe(barcode.remux(source, folder / f"cut.{container}", start=2.2, stop=stop))
        assert ("edit list" in info.decord_refusal) == (container == "mp4")
        numbers = [barcode.read_number(picture) for picture in read_frames(info, info.times)]
        assert numbers == [first + round(time * 25) for time in info.times]
        assert abs(first + len(numbers) - stop * 25) <= 3


def test_a_transport_stream_recorded_from_the_middle_begins_at_its_first_key_frame(folder):
    path, _ = written(folder, "plain.ts")
    content = path.read_bytes()
    late = folder / "late.ts"
    late.write_bytes(content[len(content) // 188 // 3 * 188 :])
    info = probe(late)
    numbers = [barcode.read_number(picture) for picture in read_frames(info, info.times)]
    assert numbers[0] % 25 == 0
    assert numbers == list(range(numbers[0], 150))


def full_decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return [frame.to_ndarray(format="rgb24", threads=1) for frame in container.decode(video=0)]


@pytest.mark.parametrize("fps", [0.25, 1, 2, 25])
def test_skipping_and_decord_give_the_pixels_of_a_full_decode(textured, fps):
    info = probe(textured)
    times = frame_times(info.duration, fps)
    everything = full_decode(textured)
    full = [everything[int(time * 25 + 1e-6)] for time in times]
    for decoder in ("pyav", "decord"):
        pictures = list(read_frames(info, times, decoder=decoder))
        assert all(np.array_equal(picture, frame) for picture, frame in zip(pictures, full, strict=True))


def test_at_one_frame_per_second_less_than_half_of_the_frames_is_decoded(textured, monkeypatch):
    decoded = []
    decode = pyav_reader._Pass._decoded
    monkeypatch.setattr(pyav_reader._Pass, "_decoded", lambda *a: decoded.extend(out := decode(*a)) or out)
    info = probe(textured)
    assert len(list(read_frames(info, frame_times(info.duration, 1)))) == 12
    assert 12 <= len(decoded) < 150


@pytest.mark.parametrize("name", ["gop25.mp4", "gop25.mkv", "intra.mp4", "hevc.mp4", "plain.ts"])
def test_reading_from_every_fresh_start_gives_what_one_pass_gives(folder, name, monkeypatch):
    monkeypatch.setattr(pyav_reader, "_SEEK_PACKETS", 3)
    info = probe(written(folder, name)[0])
    times = frame_times(info.duration, 5)
    edges = [*fresh_starts(info, times, "pyav").tolist(), len(times)]
    assert edges[0] == 0
    assert len(edges) > 2
    whole = list(read_frames(info, times))
    parts = [p for begin, end in zip(edges, edges[1:], strict=False) for p in read_frames(info, times[begin:end])]
    assert all(np.array_equal(one, other) for one, other in zip(whole, parts, strict=True))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_rotated_video_is_turned_clockwise_by_both_readers(folder, degrees):
    upright, _ = written(folder, "plain.mp4")
    turned = folder / f"turned{degrees}.mp4"
    turned.write_bytes(upright.read_bytes())
    info = probe(barcode.rotate(turned, degrees))
    plain = next(read_frames(probe(upright), np.array([1.5])))
    for decoder in ("pyav", "decord"):
        picture = next(read_frames(info, np.array([1.5]), decoder=decoder))
        np.testing.assert_array_equal(picture, np.rot90(plain, -degrees // 90))
        assert picture.shape == (info.height, info.width, 3)


def test_both_readers_use_the_colour_matrix_that_the_file_states(folder):
    colours = {}
    for matrix in (1, 6):  # BT.709, BT.601
        path = folder / f"matrix{matrix}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            stream.codec_context.colorspace = matrix
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), (200, 60, 60), np.uint8)).reformat(format="yuv420p")
            frame.colorspace = matrix
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        pair = [next(read_frames(probe(path), np.zeros(1), decoder=name)) for name in ("pyav", "decord")]
        np.testing.assert_array_equal(*pair)
        colours[matrix] = pair[0][32, 32].astype(int)
    assert np.abs(colours[1] - colours[6]).max() > 5


def test_a_file_that_decord_is_asked_for_and_would_misread_is_named_in_the_log_and_read_with_pyav(folder, caplog):
    info = probe(written(folder, "open.mkv")[0])
    with caplog.at_level(logging.INFO):
        assert choose_reader(info, "decord") == "pyav"
        assert choose_reader(info, "auto") == "pyav"
        assert choose_reader(info, "pyav") == "pyav"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "open.mkv: read with PyAV, not decord: key frames" in caplog.text
    with pytest.raises(DataError, match="open GOP"):
        next(decord_reader.read(info, np.zeros(1)))


def test_the_version_of_the_reader_that_was_chosen_can_be_named(folder):
    info = probe(written(folder, "plain.mp4")[0])
    assert decoder_version(choose_reader(info)).startswith(f"pyav {av.__version__} ")
    assert re.fullmatch(r"decord \d+\.\d+\.\d+", decoder_version(choose_reader(info, "decord")))


def test_times_that_fall_are_refused_and_repeated_times_repeat_the_picture(folder):
    info = probe(written(folder, "plain.mp4")[0])
    numbers = [barcode.read_number(p) for p in read_frames(info, np.array([1.0, 1.0, 1.01, 99.0, 100.0]))]
    assert numbers == [25, 25, 25, 149, 149]
    with pytest.raises(ValueError, match="never fall"):
        frames_on_show(info.times, np.array([1.0, 0.5]))


def test_frame_times_cover_the_video_once_whatever_the_rounding():
    for seconds in (1, 7, 59, 3600):
        for fps in (0.25, 1, 2, 5, 12.5, 25):
            for noise in (-1e-9, 0, 1e-9):
                times = frame_times(seconds + noise, fps)
                assert len(times) == int(np.ceil(seconds * fps))
                np.testing.assert_array_equal(times, np.arange(len(times)) / fps)


def test_a_file_that_changes_while_it_is_read_is_an_error(folder):
    path = barcode.write_video(folder / "changing.mp4", frames=60)
    info = probe(path)
    barcode.write_video(path, frames=60, times=[index / 10 for index in range(60)])
    with pytest.raises(DataError, match="changed"):
        list(read_frames(info, info.times))


def test_an_abandoned_reader_leaves_no_file_and_no_thread_open(folder):
    info = probe(written(folder, "plain.mp4")[0])
    next(read_frames(info, info.times))  # starts the watchdog
    files, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(20):
        reader = read_frames(info, info.times)
        next(reader)
        reader.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == files
    assert threading.active_count() == threads


# Python 3.12 warns of forks beside threads; this test is about what then happens.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_reader_carried_across_a_fork_says_so_and_the_child_can_read_afresh(textured):
    info = probe(textured)
    reader = read_frames(info, info.times)
    next(reader)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            next(reader)
        except RuntimeError:
            code = 0 if barcode.read_number(next(read_frames(info, np.array([2.0])))) == 50 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert barcode.read_number(next(reader)) == 1


def test_memory_does_not_grow_with_the_length_of_the_video(folder):
    path = barcode.write_video(folder / "long.mp4", frames=2000, size=(320, 240))
    info = probe(path)

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

    marks = []
    for index, _ in enumerate(read_frames(info, info.times)):  # 461 MB of pictures
        if index % 200 == 199:
            marks.append(resident())
    assert max(marks[1:]) - marks[0] < 20
