import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_module.errors import DataError
from xclip_module.interface import Sampling, clip_rows, curve_times
from xclip_module.video.readers import frame_times


@given(st.floats(0.1, 10_000), st.floats(0.1, 100))
def test_samples_tile_the_video_up_to_half_a_stride(duration, stride):
    times = curve_times(duration, stride)
    np.testing.assert_allclose(np.diff(times), stride)
    assert times[0] == pytest.approx(stride / 2)
    assert abs(times[-1] + stride / 2 - duration) <= stride / 2 + 1e-6 or len(times) == 1


def test_a_clip_is_centred_on_its_time_and_moved_inside_at_the_ends():
    sampling = Sampling(clip_seconds=8.0, frames_per_clip=4, stride_seconds=4.0)  # grid every 2 s
    rows = clip_rows(np.array([2.0, 10.0, 18.0]), 10, sampling, video="x")
    assert rows.tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]


@given(st.integers(1, 40), st.integers(1, 20), st.floats(0.5, 60), st.floats(0.5, 20))
def test_every_row_is_a_real_frame_and_rows_rise(frames, per_clip, clip_seconds, stride):
    sampling = Sampling(clip_seconds, per_clip, stride)
    times = curve_times(frames / sampling.fps, stride)
    if frames < per_clip:
        with pytest.raises(DataError, match="shorter than one clip"):
            clip_rows(times, frames, sampling, video="x")
        return
    rows = clip_rows(times, frames, sampling, video="x")
    assert rows.min() >= 0
    assert rows.max() < frames
    assert (np.diff(rows, axis=1) == 1).all()
    assert (np.diff(rows[:, 0]) >= 0).all()


def test_a_short_video_is_named_with_the_way_out():
    with pytest.raises(DataError, match=r"shorter than one clip: op: 3 s, a clip is 16 s; try: --data.clip_seconds=3"):
        clip_rows(np.array([1.5]), 3, Sampling(16.0, 16, 4.0), video="op")


def test_a_short_video_is_named_with_its_own_length():
    """A grid of one frame a second has four frames in 3.24 s."""
    with pytest.raises(DataError, match=r"op: 3.24 s, a clip is 16 s; try: --data.clip_seconds=3.24$"):
        clip_rows(np.array([1.5]), 4, Sampling(16.0, 16, 4.0), video="op", duration=3.24)


@given(st.floats(0.05, 60), st.integers(1, 32))
def test_the_advised_clip_length_fits_the_video(duration, per_clip):
    clip_seconds = max(int(100 * duration) / 100, 0.01)
    sampling = Sampling(clip_seconds, per_clip, 1.0)
    assert len(frame_times(duration, sampling.fps)) >= per_clip
