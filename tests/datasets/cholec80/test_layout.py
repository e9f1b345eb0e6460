import numpy as np
import pytest

from xclip_module.datasets.cholec80.layout import frame_folder
from xclip_module.errors import DataError


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (range(12), np.arange(12.0)),  # one a second from 0
        (range(1, 13), np.arange(12.0)),  # ffmpeg writes from 1
        (range(0, 300, 25), np.arange(12.0)),  # 25-fps numbers of one frame a second
        (range(300), np.arange(300) / 25),  # every frame
        (range(1, 301), np.arange(300) / 25),
        ([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11], np.array([0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11.0])),  # one frame missing
    ],
    ids=str,
)
def test_base_and_stride_of_extracted_frames_are_found_and_fit_the_labels(tmp_path, numbers, expected):
    files = [tmp_path / f"video41_{number:06d}.png" for number in numbers]
    found = frame_folder(files, label_seconds=12.0)
    np.testing.assert_allclose(found.times, expected)
    assert found.duration == pytest.approx(12.0)
    assert found.files == tuple(files)


@pytest.mark.parametrize(
    ("numbers", "seconds"), [(range(1, 21), 12.0), (range(3, 15), 12.0), (range(0, 60, 5), 12.0)], ids=str
)
def test_frames_that_fit_no_hypothesis_are_refused_with_all_of_them(tmp_path, numbers, seconds):
    files = [tmp_path / f"{number:06d}.png" for number in numbers]
    with pytest.raises(DataError, match=r"do not fit the labels: .*one number a second.*25-fps numbers"):
        frame_folder(files, label_seconds=seconds)


def test_the_users_word_on_rate_and_base_is_checked_too(tmp_path):
    files = [tmp_path / f"{number:06d}.png" for number in range(7, 67)]
    assert frame_folder(files, label_seconds=12.0, fps=5.0, base=7).duration == pytest.approx(12.0)
    with pytest.raises(DataError, match="every number is 1/2 s from 7: 30 s"):
        frame_folder(files, label_seconds=12.0, fps=2.0, base=7)
