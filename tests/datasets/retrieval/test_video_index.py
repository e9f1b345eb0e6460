"""Video folders as people have them: incomplete, under other names."""

import pytest
from support.benchmark_trees import touch

from xclip_module.datasets.retrieval.captions import (
    activitynet_names,
    didemo_names,
    msrvtt_names,
    own_name,
)
from xclip_module.datasets.retrieval.video_index import find_videos, index_videos
from xclip_module.errors import DataError


@pytest.mark.parametrize(
    ("names", "video", "files", "best"),
    [
        (msrvtt_names, "video0", ("video0.webm", "video0.mp4"), "video0.mp4"),
        (msrvtt_names, "video0", ("all/video0.webm", "video00.mp4"), "all/video0.webm"),
        (msrvtt_names, "video0", ("video0.MKV", "video0.json", "video0.npy"), "video0.MKV"),
        (own_name, "-4wsuPCjDBc_5_15", ("-4wsuPCjDBc_5_15.avi",), "-4wsuPCjDBc_5_15.avi"),
        (own_name, "1_M_00.00.51.926-00.00.54.129", ("1_M/1_M_00.00.51.926-00.00.54.129.avi",), 0),
        (didemo_names, "x.avi", ("x.avi", "x.avi.mp4", "x.mp4"), "x.avi"),
        (didemo_names, "x.avi", ("x.mp4", "x.avi.mp4"), "x.avi.mp4"),
        (didemo_names, "x.3gp", ("x.mp4",), "x.mp4"),
        (didemo_names, "x.", ("x.", "x.mp4"), "x."),
        (didemo_names, "x.", ("x..mp4",), "x..mp4"),
        (didemo_names, "x.", ("x.mp4",), "x.mp4"),
        (didemo_names, "x_y", ("x_y.mp4",), "x_y.mp4"),
        (activitynet_names, "v_-abc", ("-abc.mkv", "v_-abc.mp4"), "-abc.mkv"),
        (activitynet_names, "v_abc", ("train/v_abc.webm",), "train/v_abc.webm"),
        (activitynet_names, "v_v_bc", ("v_bc.mp4",), "v_bc.mp4"),
    ],
)
def test_names_under_which_a_video_is_found(tmp_path, names, video, files, best):
    found = find_videos(index_videos(touch(tmp_path, *files)), {video: names(video)})
    assert found == {video: tmp_path / (files[best] if best == 0 else best)}


def test_what_is_no_video_is_not_found(tmp_path):
    touch(tmp_path, "a.mp4.part", "b.json", "._c.mp4")
    (tmp_path / "d.mp4").touch()
    (tmp_path / "e.mp4").mkdir()
    (tmp_path / "f.mp4").symlink_to(tmp_path / "gone.mp4")
    assert find_videos(index_videos(tmp_path), {video: (video,) for video in "abcdef"}) == {}


def test_links_are_followed_once(tmp_path):
    touch(tmp_path / "elsewhere", "b.mp4")
    touch(tmp_path / "videos", "a.mp4")
    (tmp_path / "videos" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "videos")
    found = find_videos(index_videos(tmp_path / "videos"), {video: (video,) for video in "ab"})
    assert found == {"a": tmp_path / "videos" / "a.mp4", "b": tmp_path / "videos" / "more" / "b.mp4"}


def test_two_files_for_one_video_and_one_for_two_are_errors(tmp_path):
    index = index_videos(touch(tmp_path, "old/a.mp4", "new/a.avi"))
    with pytest.raises(DataError, match=r"two files for video a: .*(new/a.avi: and .*old/a.mp4|old/a.mp4: and .*new)"):
        find_videos(index, {"a": ("a",)})
    index = index_videos(touch(tmp_path / "one", "x.mp4"))
    with pytest.raises(DataError, match=r"one file for two videos: .*x.mp4: x.avi and x.mov"):
        find_videos(index, {video: didemo_names(video) for video in ("x.avi", "x.mov")})
