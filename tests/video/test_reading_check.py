"""Every video is opened, held against its labels, and on request decoded."""

from support import barcode

from xclip_module.interface import Video
from xclip_module.video.reading import Reading, check_videos

READING = Reading(fps=1.0, size=1, crop="center", batch=8, decoder="auto", threads=2, timeout_seconds=30.0)


def test_each_video_comes_with_what_is_wrong_with_it_and_damage_shows_when_all_is_decoded(tmp_path):
    path = barcode.write_video(tmp_path / "good.mp4", frames=100)
    noise = barcode.write_video(tmp_path / "noise.mp4", frames=100, size=(160, 96), gop=25, texture=30)
    videos = [
        Video("good", path, "test", label_seconds=4.0),
        Video("gone", tmp_path / "gone.mp4", "test"),
        Video("other", path, "test", label_seconds=9.0),
        Video("late", path, "test", last_moment=5.0),
        Video("damaged", barcode.spoil(noise, place=0.5), "test"),
    ]
    lines = {
        is_deep: {video.id: line for video, line in check_videos(videos, READING, is_deep=is_deep)}
        for is_deep in (False, True)
    }
    for by_name in lines.values():
        assert list(by_name) == [video.id for video in videos]
        assert by_name["good"] == ""
        assert "gone.mp4: no such file" in by_name["gone"]
        assert "labels and video differ in length" in by_name["other"]
        assert "a moment beyond the video's end" in by_name["late"]
    assert lines[False]["damaged"] == ""
    assert "damaged at" in lines[True]["damaged"]
