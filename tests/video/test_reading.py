"""How videos are read: which frames, as which squares, in which threads."""

import logging
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support import barcode

from xclip_module.errors import DataError
from xclip_module.interface import FrameFolder, Video
from xclip_module.video.frame_choice import FrameChoice
from xclip_module.video.inspect import probe
from xclip_module.video.readers import decoder_version, read_frames
from xclip_module.video.reading import Reading
from xclip_module.video.transform import to_square

READING = Reading(fps=2.0, size=32, crop="center", batch=4, decoder="auto", threads=2, timeout_seconds=30.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reading")


@pytest.fixture(scope="module")
def video(folder):
    return Video("long", barcode.write_video(folder / "long.mp4", frames=100, gop=25), "test")


def numbers(squares):
    return [barcode.read_number(square.permute(1, 2, 0).numpy()) for square in squares]


def test_the_key_names_the_frames_the_square_and_all_readers():
    readers = [decoder_version(name) for name in ("pyav", "decord", "pillow")]
    square = {"size": 32, "crop": "center", "decoder": "auto", "readers": readers}
    assert READING.key() == {"fps": 2.0, **square}
    chosen = replace(READING, choice=FrameChoice("grid", 12))
    assert chosen.key() == {"choice": ["grid", 12, "uniform", 1], **square}


def test_times_are_those_of_the_grid_or_of_the_choice_within_the_span(video):
    source = READING.open(video)
    np.testing.assert_array_equal(READING.times(video, source), np.arange(8) / 2)
    chosen = replace(READING, choice=FrameChoice("grid", 12))
    np.testing.assert_allclose(chosen.times(video._replace(span=(1.0, 2.0)), source), [1.0, 2.0])
    with pytest.raises(DataError, match="a clip without a frame: long: the video ends at 4.0 s"):
        chosen.times(video._replace(span=(7.0, 9.0)), source)


def test_a_folder_of_pictures_needs_no_opening(folder):
    files = [folder / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        Image.fromarray(barcode.picture(number)).save(file)
    pictures = FrameFolder(folder, tuple(files), np.arange(3.0), 3.0)
    assert READING.open(Video("frames", pictures, "test")) is pictures
    assert numbers(READING.squares(pictures)(np.array([0.0, 2.0]))) == [0, 2]


def test_squares_are_the_pictures_on_show_as_the_model_wants_them(video):
    times, reading = np.array([0.0, 1.2, 3.0]), replace(READING, crop="pad", size=24)
    expected = [to_square(picture, size=24, crop="pad") for picture in read_frames(probe(video.source), times)]
    assert torch.equal(torch.stack(list(reading.squares(probe(video.source))(times))), torch.stack(expected))


def test_a_reader_is_chosen_once_a_source_however_often_it_is_asked(folder, caplog):
    options = {"x264-params": "open-gop=1"}
    path = barcode.write_video(folder / "open.mkv", frames=60, gop=25, options=options)
    caplog.set_level(logging.INFO)
    squares_at = replace(READING, decoder="decord").squares(probe(path))
    assert [numbers(squares_at(np.array([time]))) for time in (0.0, 1.0, 2.0)] == [[0], [25], [50]]
    assert len([message for message in caplog.messages if "read with PyAV, not decord" in message]) == 1


def test_a_stream_brings_every_video_in_order_with_its_pictures_or_the_error(folder, video):
    short = Video("short", barcode.write_video(folder / "short.mp4", frames=30), "test")
    streams = READING.stream([video, Video("gone", folder / "gone.mp4", "test"), short])
    outcomes = {}
    for opened, pictures in streams:
        if isinstance(pictures, DataError):
            outcomes[opened.id] = str(pictures)
            continue
        batches = list(pictures.batches)
        assert sum(map(len, batches)) == pictures.frames
        assert all(len(batch) <= READING.batch for batch in batches)
        outcomes[opened.id] = pictures.duration, numbers(torch.cat(batches))
    assert list(outcomes) == ["long", "gone", "short"]
    assert outcomes["long"] == (pytest.approx(4.0), [0, 12, 25, 37, 50, 62, 75, 87])
    assert outcomes["short"] == (pytest.approx(1.2), [0, 12, 25])
    assert "gone.mp4: no such file" in outcomes["gone"]


def test_closing_a_stream_ends_its_threads(video):
    streams = replace(READING, fps=25.0, batch=1).stream([video] * 3)
    _, pictures = next(streams)
    next(pictures.batches)
    streams.close()
    assert not [thread for thread in threading.enumerate() if thread.name in ("decode 0", "decode 1")]


@pytest.mark.parametrize(("cores", "processes", "expected"), [(2, 1, 1), (8, 1, 4), (8, 2, 2), (8, 8, 1), (64, 1, 8)])
def test_reading_threads_are_one_per_two_cores_of_this_process(monkeypatch, cores, processes, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(cores), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert replace(READING, threads=0).thread_count() == expected
    assert replace(READING, threads=3).thread_count() == 3
