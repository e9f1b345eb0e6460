"""Videos that were unpacked into pictures."""

import numpy as np
import pytest
from PIL import Image
from support import barcode

from xclip_module.errors import DataError
from xclip_module.interface import FrameFolder
from xclip_module.video.readers import choose_reader, decoder_version, read_frames


def test_a_folder_of_pictures_is_read_by_time_and_a_broken_picture_is_named(tmp_path):
    files = []
    for number in range(4):
        files.append(tmp_path / f"{number:05d}.{'jpg' if number % 2 else 'png'}")
        Image.fromarray(barcode.picture(number)).save(files[-1])
    source = FrameFolder(tmp_path, tuple(files), np.arange(4) / 2, 2.0)
    times = np.array([0.0, 0.4, 1.0, 1.7])
    assert [barcode.read_number(picture) for picture in read_frames(source, times)] == [0, 0, 2, 3]
    assert decoder_version(choose_reader(source)).startswith("pillow ")
    barcode.truncate(files[3], 0.5)
    files[2].unlink()
    with pytest.raises(DataError, match=r"00002\.png: no such file"):
        list(read_frames(source, times))
    with pytest.raises(DataError, match=r"00003\.jpg"):
        list(read_frames(source, times[-1:]))
