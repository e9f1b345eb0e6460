import logging
import shutil
import threading
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.barcode import read_number, write_video
from support.cholec80_tree import write_frames

from xclip_module.benchmark import frames as benchmark
from xclip_module.datasets.cholec80.layout import frame_folder
from xclip_module.errors import ConfigError, DataError, DiskError
from xclip_module.features import video_pass
from xclip_module.features.frame_cache import cached_frames, stored_side, video_frames
from xclip_module.features.store import FeatureStore
from xclip_module.features.stored_frames import FrameStorage, make_grid, validation_frames
from xclip_module.interface import Sampling, Video, clip_rows
from xclip_module.run.distributed import World
from xclip_module.video.inspect import probe
from xclip_module.video.readers import read_frames
from xclip_module.video.reading import Reading
from xclip_module.video.transform import to_square

SAMPLING = Sampling(4.0, 4, 1.0)
GRID, FINE = make_grid(SAMPLING, 0.0), make_grid(SAMPLING, 2.0)
READING = Reading(fps=1.0, size=32, crop="center", batch=3, decoder="auto", threads=2, timeout_seconds=30.0)
ONE = World(0, 1, torch.device("cpu"))
TIMES = (0.0, 1.9, 2.4, 2.6, 3.3, 5.0, 8.1)


def storage(tmp_path, *, grid=GRID, world=ONE, skip_unreadable=False):
    reading = replace(READING, fps=grid.fps)
    return FrameStorage(FeatureStore(tmp_path / "store"), reading, world, skip_unreadable)


def sources(videos, tmp_path, grid=GRID):
    where = storage(tmp_path, grid=grid)
    cached = cached_frames(videos, where, grid=grid)
    straight = video_frames(videos, where.reading, grid=grid, world=ONE, skip_unreadable=False)
    return {"cache": cached.frames, "video": straight.frames}


def shown(clip):
    return [read_number(frame.permute(1, 2, 0).numpy()) for frame in clip]


def decoded(monkeypatch):
    """The names of the videos that a pass reads from now on."""
    names, real = [], video_pass._encode_one

    def counting(video, *rest):
        names.append(video.id)
        return real(video, *rest)

    monkeypatch.setattr(video_pass, "_encode_one", counting)
    return names


@pytest.fixture
def videos(tmp_path):
    files = [write_video(tmp_path / f"video{n}.mp4", frames=200 + 25 * n, gop=25) for n in range(3)]
    return [Video(file.stem, file, "train", label_seconds=8.0 + n) for n, file in enumerate(files)]


@pytest.mark.parametrize("source", ["cache", "video"])
def test_a_clip_holds_the_frames_that_scoring_takes(videos, tmp_path, source):
    """Of 1 frame per second of 25-fps video: 0, 25, 50 …; at the ends a clip is moved inside."""
    frames = sources(videos, tmp_path)[source]
    for video, count in (("video0", 8), ("video2", 10)):
        for time in TIMES:
            rows = clip_rows(np.array([time]), count, SAMPLING, video=video)[0]
            assert shown(frames.clip(video, time)) == (25 * rows).tolist()


@pytest.mark.parametrize("source", ["cache", "video"])
def test_on_a_finer_grid_clips_begin_between_their_own_frames(videos, tmp_path, source):
    """Of 2 frames per second: 0, 12, 25, 37 …; the middle of the clip is never farther from the time than 0.25 s."""
    frames = sources(videos, tmp_path, FINE)[source]
    assert shown(frames.clip("video0", 4.0)) == [50, 75, 100, 125]
    assert shown(frames.clip("video0", 4.3)) == [62, 87, 112, 137]
    assert shown(frames.clip("video0", 0.0)) == [0, 25, 50, 75]
    assert shown(frames.clip("video0", 8.0)) == [100, 125, 150, 175]


def test_both_sources_show_the_same_up_to_jpeg(videos, tmp_path):
    both = sources(videos, tmp_path)
    for time in TIMES:
        clips = [both[name].clip("video1", time) for name in both]
        assert all(clip.shape == (4, 3, 32, 32) and clip.dtype == torch.uint8 for clip in clips)
        assert (clips[0].int() - clips[1].int()).abs().float().mean() < 3


def test_extracted_frames_are_a_source_like_any_other(tmp_path):
    files = write_frames(tmp_path / "video41", range(1, 13))
    video = Video("video41", frame_folder(files, label_seconds=12.0), "train", 12.0, 1.0)
    for frames in sources([video], tmp_path).values():
        levels = frames.clip("video41", 6.0).float().mean(dim=(1, 2, 3)).round().tolist()
        assert levels == [4, 5, 6, 7]


def test_a_second_start_decodes_nothing_and_a_cut_one_goes_on_where_it_was(videos, tmp_path, monkeypatch):
    names, where = decoded(monkeypatch), storage(tmp_path)
    cached_frames(videos[:1], where, grid=GRID)
    assert names == ["video0"]
    save = FeatureStore.save

    def killed(store, key, arrays):
        if key["video"] == "video2":
            raise KeyboardInterrupt
        save(store, key, arrays)

    monkeypatch.setattr(FeatureStore, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        cached_frames(videos, where, grid=GRID)
    assert not [thread for thread in threading.enumerate() if thread.name in ("decode 0", "decode 1")]
    monkeypatch.setattr(FeatureStore, "save", save)
    names.clear()
    frames = cached_frames(videos, where, grid=GRID).frames
    assert names == ["video2"]
    assert shown(frames.clip("video2", 2.0)) == [0, 25, 50, 75]
    names.clear()
    cached_frames(videos, where, grid=GRID)
    assert names == []


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_file_is_made_again(videos, tmp_path, monkeypatch, caplog, damage):
    where = storage(tmp_path)
    before = cached_frames(videos, where, grid=GRID).frames.clip("video1", 3.0)
    (path,) = where.store.folder.glob("video1-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes({"truncate": content[:-3], "flip": content, "empty": b""}[damage])
    names = decoded(monkeypatch)
    again = cached_frames(videos, where, grid=GRID).frames
    assert names == ["video1"]
    assert "encoded again" in caplog.text
    assert torch.equal(again.clip("video1", 3.0), before)


def test_what_it_takes_is_said_before_and_after(videos, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    where = storage(tmp_path)
    cached_frames(videos[:1], where, grid=GRID)
    caplog.clear()
    cached_frames(videos, where, grid=GRID)
    first, last = (record.getMessage() for record in caplog.records)
    assert "training frames, to be made in" in first
    assert "19 frames of 2 videos, about 0.0 MB" in first
    assert "training frames: 3 videos, 0.0 MB" in last


def test_a_disk_on_which_the_frames_have_no_room_is_refused_before_the_work(videos, tmp_path, monkeypatch):
    """What it will take is guessed well enough: 20 % less room than was needed is too little, 20 % more is enough."""
    usage, where = namedtuple("usage", "free"), storage(tmp_path)
    where = where._replace(reading=replace(where.reading, size=96))
    cached_frames(videos, where, grid=GRID)
    needed = sum(path.stat().st_size for path in where.store.folder.iterdir())
    for path in where.store.folder.iterdir():
        path.unlink()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0.8 * needed))
    with pytest.raises(DiskError, match=r"no room for the training frames: .*27 frames of 3 videos.*--finetune.cache"):
        cached_frames(videos, where, grid=GRID)
    assert not list(where.store.folder.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(1.2 * needed))
    cached_frames(videos, where, grid=GRID)


@pytest.mark.parametrize("source", ["cache", "video"])
def test_unreadable_short_and_mislabelled_videos_are_refused_or_left_out(videos, tmp_path, source):
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 1000)
    short = write_video(tmp_path / "short.mp4", frames=75)
    bad = {
        "broken": (Video("broken", tmp_path / "broken.mp4", "train", 8.0), "broken.mp4"),
        "gone": (Video("gone", tmp_path / "gone.mp4", "train", 8.0), "gone.mp4"),
        "short": (Video("short", short, "train", 3.0), "video shorter than one clip: short: 3 s"),
        "other": (Video("other", videos[0].source, "train", 9.0), "labels and video differ in length"),
    }

    def start(given, skip):
        if source == "cache":
            return cached_frames(given, storage(tmp_path, skip_unreadable=skip), grid=GRID)
        return video_frames(given, READING, grid=GRID, world=ONE, skip_unreadable=skip)

    for video, message in bad.values():
        with pytest.raises(DataError, match=message):
            start([video, *videos], False)
    found = start([*(video for video, _ in bad.values()), *videos], True)
    assert set(found.skipped) == set(bad)
    assert all(message in found.skipped[name] for name, (_, message) in bad.items())
    assert shown(found.frames.clip("video2", 4.0)) == [50, 75, 100, 125]


def test_stored_frames_of_other_labels_are_refused_too(videos, tmp_path):
    cached_frames(videos, storage(tmp_path), grid=GRID)
    with pytest.raises(DataError, match="labels and video differ in length"):
        cached_frames([videos[0]._replace(label_seconds=7.0)], storage(tmp_path), grid=GRID)


def test_a_video_with_one_frame_for_each_of_a_clips_is_long_enough_on_any_grid(tmp_path):
    """3.2 s at 1 frame per second are four frames: enough for scoring, so also with a finer grid."""
    video = Video("v", write_video(tmp_path / "v.mp4", frames=80), "train", 3.2)
    for grid in (GRID, FINE, make_grid(SAMPLING, 5.0)):
        for frames in sources([video], tmp_path, grid).values():
            assert shown(frames.clip("v", 1.0)) == [0, 25, 50, 75]


def test_the_grid_is_a_whole_multiple_of_the_clips_own():
    assert make_grid(SAMPLING, 3.0).step == 3
    assert make_grid(Sampling(16.0, 12, 4.0), 1.5).step == 2
    with pytest.raises(ConfigError, match=r"cache_fps=1.5: clips have 1 frames per second.*--finetune.cache_fps=2"):
        make_grid(SAMPLING, 1.5)


def test_two_processes_make_their_shares_and_open_everything(videos, tmp_path, monkeypatch):
    """Two threads stand for the processes; a barrier for the exchange."""
    barrier, values, names = threading.Barrier(2), [None, None], decoded(monkeypatch)

    def gather(value, world):
        values[world.rank] = value
        barrier.wait()
        found = list(values)
        barrier.wait()
        return found

    monkeypatch.setattr("xclip_module.run.distributed.gather", gather)
    found = {}

    def work(rank):
        world = World(rank, 2, torch.device("cpu"))
        found[rank] = cached_frames(videos, storage(tmp_path, world=world), grid=GRID).frames

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == ["video0", "video1", "video2"]
    for rank in range(2):
        assert shown(found[rank].clip("video1", 4.0)) == [50, 75, 100, 125]


def test_clips_may_be_asked_for_from_many_threads(videos, tmp_path):
    for frames in sources(videos, tmp_path).values():
        wrong = []

        def ask(start, frames=frames, wrong=wrong):
            for number in range(10):
                first = (start + number) % 5
                if shown(frames.clip("video0", first + 2.0)) != [25 * (first + n) for n in range(4)]:
                    wrong.append(first)

        threads = [threading.Thread(target=ask, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_validation_sees_exactly_the_pixels_of_scoring(videos, tmp_path):
    """And leaves them on disk: an array that was opened is a view of the file."""
    for _ in range(2):
        opened = validation_frames(videos, storage(tmp_path), grid=GRID)
        assert [video.id for video, _ in opened.videos] == ["video0", "video1", "video2"]
        for video, arrays in opened.videos:
            times = np.arange(int(arrays["frames"]), dtype=float)
            expected = [to_square(picture, size=32) for picture in read_frames(probe(video.source), times)]
            np.testing.assert_array_equal(arrays["pictures"], torch.stack(expected).numpy())
            assert not arrays["pictures"].flags.owndata


def test_without_crops_frames_are_stored_in_the_models_own_size():
    assert [stored_side(224, crop_scale=scale) for scale in (1.0, 0.7)] == [224, 256]
    assert stored_side(336, crop_scale=0.5) == 384


def test_the_benchmark_compares_the_same_clips(monkeypatch):
    monkeypatch.setattr(benchmark, "_CLIPS", 3)
    text = "\n".join(benchmark.run(seconds=40, size=(128, 72)))
    assert "from JPEG files" in text
    difference = float(text.split("pixels differ by ")[1].split()[0])
    assert difference < 3
