"""Reading ahead in threads: the same frames in the same order, bounded memory, no thread left behind."""

import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from support import barcode

from xclip_module.errors import DataError
from xclip_module.interface import FrameFolder, VideoInfo
from xclip_module.video import decode_ahead as module
from xclip_module.video.decode_ahead import Job, decode_ahead
from xclip_module.video.inspect import probe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ahead")


@pytest.fixture(scope="module")
def video(folder):
    """10 s with a fresh start every second."""
    return barcode.write_video(folder / "long.mp4", frames=250, gop=25)


@pytest.fixture(scope="module")
def damaged(folder):
    """Right for the first second or more, then noise."""
    path = barcode.write_video(folder / "damaged.mp4", frames=100, size=(160, 96), gop=25, texture=30)
    return barcode.spoil(path, place=0.5)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert reading_threads() == []


def reading_threads() -> list[str]:
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("decode ") and "dog" not in thread.name
    ]


def numbers(frames: torch.Tensor) -> list[int]:
    return [barcode.read_number(frame.permute(1, 2, 0).numpy()) for frame in frames]


def test_videos_come_in_the_order_of_the_jobs_with_the_frames_of_their_times(folder, video):
    short = barcode.write_video(folder / "short.mp4", frames=30)
    pictures = [folder / f"{number}.png" for number in range(3)]
    for number, path in enumerate(pictures):
        Image.fromarray(barcode.picture(number)).save(path)
    jobs = [
        Job("a", video, fps=2.0),
        Job("b", short, fps=25.0),
        Job("c", FrameFolder(folder, tuple(pictures), np.arange(3.0), 3.0)),
        Job("d", probe(video), times=np.array([0.5, 0.5, 9.0])),
        Job("e", short, times=np.empty(0)),
    ]
    seen = {}
    for job, batches in decode_ahead(jobs, size=32, threads=3, batch=8):
        assert not isinstance(job.source, type(video))
        seen[job.key] = [pair for times, frames in batches for pair in zip(times, numbers(frames), strict=True)]
        assert [pair[0] for pair in seen[job.key]] == job.times.tolist()
    assert list(seen) == ["a", "b", "c", "d", "e"]
    assert [pair[1] for pair in seen["a"]] == [int(step * 12.5) for step in range(20)]
    assert [pair[1] for pair in seen["b"]] == list(range(30))
    assert [pair[1] for pair in seen["c"]] == [0, 1, 2]
    assert [pair[1] for pair in seen["d"]] == [12, 12, 225]
    assert seen["e"] == []


def test_the_batches_are_the_same_for_any_number_of_threads(video):
    runs = []
    for threads in (1, 2, 5):
        stream = decode_ahead([Job("a", video, fps=10.0), Job("b", video)], size=32, threads=threads, batch=8)
        runs.append([(job.key, *batch) for job, batches in stream for batch in batches])
    for run in runs[1:]:
        for (key, times, frames), (other_key, other_times, other_frames) in zip(runs[0], run, strict=True):
            assert key == other_key
            np.testing.assert_array_equal(times, other_times)
            assert torch.equal(frames, other_frames)
    assert max(len(batch[1]) for batch in runs[0]) == 8


def spy(monkeypatch, pause: float = 0.0) -> list[str]:
    """The name of the reading thread of every picture."""
    names: list[str] = []
    paint = module.to_square

    def watched(*args, **kwargs):
        names.append(threading.current_thread().name)
        time.sleep(pause)
        return paint(*args, **kwargs)

    monkeypatch.setattr(module, "to_square", watched)
    return names


def test_several_threads_read_one_long_video(video, monkeypatch):
    names = spy(monkeypatch, pause=0.01)
    ((_, batches),) = decode_once(Job("a", video, fps=10.0), threads=3, batch=4)
    assert len(batches) >= 25
    assert len(names) == 100
    assert len(set(names)) == 3


def decode_once(job: Job, **options) -> list[tuple[Job, list]]:
    return [(job, list(batches)) for job, batches in decode_ahead([job], size=32, **options)]


def test_a_slow_consumer_bounds_what_is_decoded_ahead(video, monkeypatch):
    names = spy(monkeypatch)
    stream = decode_ahead(
        [Job(str(index), video, fps=25.0) for index in range(3)], size=32, threads=2, ahead=2, batch=5
    )
    _, batches = next(stream)
    next(batches)
    waiting = -1
    while waiting != len(names):
        waiting = len(names)
        time.sleep(0.2)
    assert waiting <= (2 + 2) * (2 + 1) * 5
    stream.close()


def test_an_unreadable_video_raises_for_itself_and_the_others_come(folder, video, damaged):
    missing = folder / "missing.mp4"
    outcome = {}
    jobs = [Job("missing", missing), Job("good", video), Job("damaged", damaged, fps=25.0), Job("again", video)]
    for job, batches in decode_ahead(jobs, size=32, threads=2, batch=4):
        count = 0
        try:
            for times, _ in batches:
                count += len(times)
        except DataError as error:
            outcome[job.key] = str(error)
        else:
            outcome[job.key] = count
    assert f"{missing}: no such file" in outcome.pop("missing")
    assert f"{damaged}: damaged at" in outcome.pop("damaged")
    assert outcome == {"good": 10, "again": 10}


def test_pictures_before_the_damage_come_before_the_error(damaged):
    for _, batches in decode_ahead([Job("a", damaged, fps=25.0)], size=32, batch=4):
        seen: list[int] = []
        with pytest.raises(DataError, match="damaged"):
            seen.extend(number for batch in batches for number in numbers(batch.frames))
        assert len(seen) >= 24
        assert seen == list(range(len(seen)))


def test_batches_kept_for_later_are_refused(video):
    (_, first), (_, second) = decode_ahead([Job("a", video), Job("b", video)], size=32)
    with pytest.raises(RuntimeError, match="batches of a were asked for after"):
        next(first)
    with pytest.raises(RuntimeError, match="batches of b were asked for after"):
        next(second)


def test_leaving_a_video_early_goes_on_with_the_next(video):
    seen = []
    for job, batches in decode_ahead([Job(str(index), video, fps=25.0) for index in range(4)], size=32, batch=4):
        for batch in batches:
            seen.append((job.key, numbers(batch.frames)))
            break
    assert seen == [(str(index), [0, 1, 2, 3]) for index in range(4)]


def test_closing_the_stream_ends_the_threads_at_once(video, monkeypatch):
    spy(monkeypatch, pause=0.02)
    stream = decode_ahead([Job("a", video, fps=25.0)] * 3, size=32, threads=4)
    next(next(stream)[1])
    assert len(reading_threads()) == 4
    begin = time.monotonic()
    stream.close()
    assert time.monotonic() - begin < 1
    assert reading_threads() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_exception_in_the_loop_ends_the_threads(video, error):
    def consume() -> None:
        for _, batches in decode_ahead([Job("a", video, fps=25.0)] * 3, size=32, threads=4):
            for _ in batches:
                raise error

    with pytest.raises(error):
        consume()
    assert reading_threads() == []


def test_a_bug_in_a_reading_thread_reaches_the_consumer(video, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(module, "to_square", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        decode_once(Job("a", video))


def test_the_next_frames_are_decoded_while_the_consumer_holds_a_batch(video, monkeypatch):
    names = spy(monkeypatch)
    stream = decode_ahead([Job("a", video, fps=10.0)], size=32, threads=1, batch=10)
    _, batches = next(stream)
    next(batches)
    deadline = time.monotonic() + 10
    while len(names) < 30 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(names) >= 30
    stream.close()


def test_the_chosen_decoder_reads(video, monkeypatch):
    ((job, batches),) = decode_once(Job("a", video), decoder="decord")
    assert isinstance(job.source, VideoInfo)
    assert [number for batch in batches for number in numbers(batch.frames)] == list(range(0, 250, 25))
