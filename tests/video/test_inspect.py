"""What cannot be read: one line that names the file and the way out, never a wrong or missing picture in silence."""

import re
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support import barcode

from xclip_module.errors import DataError
from xclip_module.video.inspect import probe
from xclip_module.video.readers import read_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("broken")


@pytest.fixture(scope="module")
def good(folder):
    return barcode.write_video(folder / "good.mp4", frames=60, texture=20, container_options={"movflags": "faststart"})


def broken(folder: Path, kind: str, source: Path) -> Path:
    path = folder / f"{kind}.mp4"
    content = source.read_bytes()
    writings = {
        "empty": b"",
        "zeros": bytes(5000),
        "noise": np.random.default_rng(0).bytes(5000),
        "page": b"<!DOCTYPE html><html>404 Not Found</html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "playlist": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{source}\n".encode(),
        "concat": f"ffconcat version 1.0\nfile '{source}'\n".encode(),
        "header_only": content[:32],
        "short_by_one": content[:-1],
    }
    path.write_bytes(writings.get(kind, b""))
    if kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind in ("missing", "dangling"):
        path.unlink()
        if kind == "dangling":
            path.symlink_to(folder / "gone.mp4")
    elif kind == "audio":
        barcode.write_audio(path)
    elif kind == "photo":
        Image.new("RGB", (50, 40)).save(path, "JPEG")
    return path


KINDS = "empty zeros noise page pointer playlist concat header_only short_by_one folder missing dangling audio photo"


@pytest.mark.parametrize("kind", KINDS.split())
def test_what_is_no_video_is_refused_in_one_line_that_names_it(folder, good, kind):
    path = broken(folder, kind, good)
    with pytest.raises(DataError) as caught:
        probe(path)
    assert re.fullmatch(rf"[^\n]+: {re.escape(str(path))}: [^\n]+; try: [^\n]+", str(caught.value))


@pytest.mark.parametrize("kind", ["mkv", "avi", "ts", "mp4", "mp4 faststart", "mp4 frag_keyframe+empty_moov"])
@pytest.mark.parametrize("share", [0.6, 0.99])
def test_a_file_that_was_cut_short_is_refused(folder, kind, share):
    suffix, _, flags = kind.partition(" ")
    path = folder / f"short.{suffix}"
    options = {"movflags": flags} if flags else {}
    barcode.write_video(path, frames=60, gop=20, texture=20, container_options=options)
    barcode.truncate(path, share)
    with pytest.raises(DataError, match=r"short\.\w+: (cut short|no index|damaged)"):
        list(read_frames(probe(path), np.arange(60) / 25))


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts"])
def test_damage_in_the_middle_is_an_error_that_names_the_place_and_not_a_picture(folder, suffix):
    path = barcode.write_video(folder / f"damaged.{suffix}", frames=100, size=(160, 96), gop=25, texture=30)
    barcode.spoil(path, place=0.5)
    seen = []

    def look() -> None:
        info = probe(path)
        seen.extend(barcode.read_number(picture) for picture in read_frames(info, info.times))

    with pytest.raises(DataError, match=rf"damaged\.{suffix}: damaged (at ([12]\.\d s|byte \d+)|\()"):
        look()
    assert seen == list(range(len(seen)))


def test_bytes_after_the_end_of_an_mp4_do_no_harm(folder, good):
    path = folder / "trailing.mp4"
    path.write_bytes(good.read_bytes() + bytes(100) + b"recorder 7")
    assert len(probe(path).times) == 60


def test_a_title_in_another_encoding_does_no_harm(folder, good):
    path = folder / "title.mp4"
    with av.open(str(good)) as source, av.open(str(path), "w") as container:
        container.metadata["title"] = "Op-Nummer"
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"Op-Nummer", b"Op-N\xfcmmer"))
    assert len(probe(path).times) == 60


def test_audio_that_lasts_longer_than_the_pictures_is_not_taken_for_a_missing_end(folder):
    info = probe(barcode.write_video(folder / "long_audio.mp4", frames=25, audio_seconds=4))
    assert info.duration == pytest.approx(1.0)
