"""The frames at which the released retrieval code looks."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from support.benchmark_trees import GOLDEN

from xclip_module.video.frame_choice import frames_on_show, grid_times, stream_fps, uniform_times
from xclip_module.video.inspect import probe
from xclip_module.video.readers import read_frames

SECOND_GRID = json.loads((GOLDEN / "second_grid.json").read_text())
SAMPLING = json.loads((GOLDEN / "frame_sampling.json").read_text())
CLIPS = Path(os.environ.get("XCLIP_GOLDEN", "nowhere")) / "video" / "clips"
SLICES = {"head": "slice_framepos0_head", "tail": "slice_framepos1_tail", "uniform": "slice_framepos2_uniform"}


def numbers(shown, times):
    """[T] the frames that the readers deliver at these times."""
    return frames_on_show(shown, times).tolist()


def variant(key):
    """Clip, its frames a second and length in frames, then rate and span of a golden key."""
    clip, name = key.split("|")
    fps, frames = re.search(r"([\d.]+)fps_\d+x\d+_(\d+)f", clip).groups()
    rate, *span = map(int, name.removeprefix("fps").split("_"))
    return clip, float(fps), int(frames), {"rate": rate, "span": tuple(span) or None}


@pytest.mark.parametrize("key", SECOND_GRID)
def test_the_grid_is_what_opencv_read_for_the_released_code(key):
    _, fps, frames, options = variant(key)
    shown = np.arange(frames) / fps
    assert numbers(shown, grid_times(shown, fps, max_frames=100, **options)) == SECOND_GRID[key]


@pytest.mark.parametrize("sampling", SLICES)
@pytest.mark.parametrize("case", SAMPLING["max_frames"])
def test_a_long_grid_is_thinned_as_released(case, sampling):
    values = dict(pair.split("=") for pair in case.split(","))
    frames, fps = int(values["frames"]), float(values["fps"])
    span = (int(values["start"]), int(values["end"])) if "start" in values else None
    shown = np.arange(frames) / fps
    times = grid_times(shown, fps, max_frames=int(values.get("max_frames", 12)), sampling=sampling, span=span)
    assert numbers(shown, times) == SAMPLING["max_frames"][case][SLICES[sampling]]


@pytest.mark.parametrize("frames", SAMPLING["uniform_12"], ids=int)
def test_twelve_uniform_frames_are_mmaction2s(frames):
    shown = np.arange(int(frames)) / 25
    assert numbers(shown, uniform_times(shown, 12)) == SAMPLING["uniform_12"][frames]


def test_the_grid_counts_frames_not_seconds():
    """A video of 29.97 fps is looked at every 29 frames; times of any spacing are those of the frames."""
    shown = np.sort(np.random.default_rng(0).uniform(0, 10, 300))
    times = grid_times(shown, 29.97, max_frames=4, sampling="head")
    assert times.tolist() == shown[[0, 29, 58, 87]].tolist()


def test_a_span_behind_the_end_gives_no_time():
    assert len(grid_times(np.arange(20) / 30, 30, max_frames=4, span=(1, 3))) == 0


@pytest.mark.parametrize("span", [(3, 3), (4, 2), (-1, 2)])
def test_an_impossible_span_is_refused(span):
    with pytest.raises(ValueError, match="span"):
        grid_times(np.arange(200) / 25, 25, max_frames=4, span=span)


def test_an_unknown_sampling_is_refused():
    with pytest.raises(ValueError, match="expected one of"):
        grid_times(np.arange(200) / 25, 25, max_frames=4, sampling="random")


def test_less_than_one_frame_a_second_counts_as_one():
    """The released code divides by zero."""
    shown = np.arange(5) * 2.0
    assert grid_times(shown, 0.5, max_frames=12).tolist() == shown.tolist()


@pytest.mark.parametrize("fps", [24000 / 1001, 24, 25, 30000 / 1001, 30, 60000 / 1001, 60])
@pytest.mark.parametrize("frames", [100, 750, 20000])
def test_the_rate_is_found_from_times_that_are_rounded_to_milliseconds(fps, frames):
    shown = np.round(np.arange(frames) / fps, 3)
    duration = float(shown[-1]) + round(1 / fps, 3)
    assert int(stream_fps(shown, duration)) == int(fps + 1e-9)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="XCLIP_GOLDEN names no folder with video/clips")
@pytest.mark.parametrize("key", SECOND_GRID)
def test_the_readers_deliver_the_frames_that_opencv_read(key):
    """From the files themselves: the number of a frame is painted as ten bars along its bottom, bit 0 leftmost."""
    clip, _, frames, options = variant(key)
    video = probe(CLIPS / clip)
    assert len(video.times) == frames
    times = grid_times(video.times, stream_fps(video.times, video.duration), max_frames=100, **options)
    seen = []
    for picture in read_frames(video, times):
        row = picture[-4].mean(axis=1)
        bars = [row[(2 * bit + 1) * len(row) // 20] > 128 for bit in range(10)]
        seen.append(sum(int(bar) << bit for bit, bar in enumerate(bars)))
    assert seen == SECOND_GRID[key]
