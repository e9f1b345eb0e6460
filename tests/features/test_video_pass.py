import os
import threading
from dataclasses import replace

import numpy as np
import pytest
from support.barcode import read_number, write_video
from support.cholec80_tree import write_frames

from xclip_module.datasets.cholec80.layout import frame_folder
from xclip_module.errors import DataError
from xclip_module.features.store import FeatureStore, identity
from xclip_module.features.video_pass import feature_pass
from xclip_module.interface import Video
from xclip_module.run.progress import Progress
from xclip_module.video.reading import Reading

READING = Reading(fps=2.0, size=32, crop="center", batch=8, decoder="auto", threads=2, timeout_seconds=30.0)


def numbers(batches, frames, duration, video):
    """Stands for a model: a frame's feature is the number that it shows."""
    shown = [read_number(frame.permute(1, 2, 0).numpy()) for batch in batches for frame in batch]
    assert len(shown) == frames
    return {"features": np.array(shown, np.float16)[:, None]}


def run(videos, store, encode=numbers, *, key=None, reading=READING):
    with Progress(len(videos), name="videos", unit="videos", is_shown=False) as progress:
        found = feature_pass(videos, encode, store=store, key=key or {}, reading=reading, progress=progress)
        results = {video.id: result for video, result in found}
        assert progress.done == pytest.approx(len(videos))
    return results


def refuse(batches, frames, duration, video):
    raise AssertionError("a second run decodes nothing")


@pytest.fixture
def videos(tmp_path):
    files = [write_video(tmp_path / f"video{n}.mp4", frames=100 + 25 * n) for n in range(3)]
    return [Video(file.stem, file, "test") for file in files]


def test_every_grid_frame_is_encoded_once_and_a_second_run_decodes_nothing(videos, tmp_path):
    store = FeatureStore(tmp_path / "store")
    first = run(videos, store)
    assert first["video1"]["features"][:, 0].tolist() == [0, 12, 25, 37, 50, 62, 75, 87, 100, 112]
    assert (first["video1"]["duration"], first["video1"]["frames"]) == (5.0, 10)
    second = run(videos, store, refuse)
    for name in first:
        for part in first[name]:
            np.testing.assert_array_equal(first[name][part], second[name][part])


CHANGES = {
    "weights": {"key": {"weights": "b"}},
    "precision": {"key": {"weights": "a", "precision": "bf16"}},
    "fps": {"reading": {"fps": 1.0}},
    "size": {"reading": {"size": 48}},
    "crop": {"reading": {"crop": "squash"}},
    "decoder": {"reading": {"decoder": "decord"}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_features_depend_on_makes_them_anew(videos, tmp_path, change):
    store = FeatureStore(tmp_path / "store")
    run(videos, store, key={"weights": "a"})
    key = CHANGES[change].get("key", {"weights": "a"})
    reading = Reading(**{**READING.__dict__, **CHANGES[change].get("reading", {})})
    encoded = []

    def count(batches, frames, duration, video):
        encoded.append(video)
        return numbers(batches, frames, duration, video)

    run(videos, store, count, key=key, reading=reading)
    assert len(encoded) == 3
    run(videos, store, refuse, key={"weights": "a"})


def test_a_replaced_or_touched_file_is_read_again(videos, tmp_path):
    store = FeatureStore(tmp_path / "store")
    run(videos, store)
    write_video(videos[0].source, frames=[7] * 100)
    assert set(run(videos, store)["video0"]["features"][:, 0]) == {7}
    stat = videos[1].source.stat()
    os.utime(videos[1].source, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(AssertionError, match="decodes nothing"):
        run(videos, store, refuse)


def test_batch_size_and_threads_do_not_matter_to_the_store(videos, tmp_path):
    store = FeatureStore(tmp_path / "store")
    run(videos, store)
    run(videos, store, refuse, reading=Reading(**{**READING.__dict__, "batch": 3, "threads": 1}))


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_file_is_made_again_and_said_so(videos, tmp_path, caplog, damage):
    store = FeatureStore(tmp_path / "store")
    expected = run(videos, store)
    (path,) = store.folder.glob("video0-*")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes({"truncate": content[:-3], "flip": content, "empty": b""}[damage])
    again = run(videos, store)
    assert "encoded again" in caplog.text
    np.testing.assert_array_equal(again["video0"]["features"], expected["video0"]["features"])
    run(videos, store, refuse)


def test_labels_of_another_length_are_refused_with_both_lengths_stored_or_not(videos, tmp_path):
    store = FeatureStore(tmp_path / "store")
    wrong = [video._replace(label_seconds=9.0, label_tolerance=0.08) for video in videos]
    message = "labels and video differ in length.*video0.mp4: the video lasts 4.00 s, the labels of video0 9.00 s"
    with pytest.raises(DataError, match=message):
        raise run(wrong, store, refuse)["video0"]
    run(videos, store)
    with pytest.raises(DataError, match=message):
        raise run(wrong, store, refuse)["video0"]


def test_a_label_row_more_is_within_the_tolerance(videos, tmp_path):
    right = [videos[0]._replace(label_seconds=4.04, label_tolerance=0.08)]
    assert not isinstance(run(right, FeatureStore(tmp_path / "store"))["video0"], DataError)


def test_an_unreadable_video_is_handed_out_with_its_error_and_the_others_go_on(videos, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"\0" * 1000)
    several = [
        videos[0],
        Video("broken", tmp_path / "broken.mp4", "test"),
        Video("gone", tmp_path / "gone.mp4", "test"),
    ]
    results = run([*several, videos[1]], FeatureStore(tmp_path / "store"))
    assert {name for name, result in results.items() if isinstance(result, DataError)} == {"broken", "gone"}
    assert "broken.mp4" in str(results["broken"])
    assert "gone.mp4" in str(results["gone"])


def test_extracted_frames_are_a_source_like_any_other(tmp_path):
    files = write_frames(tmp_path / "video41", range(1, 13))
    source = frame_folder(files, label_seconds=12.0)
    seen = []

    def grey(batches, frames, duration, video):
        seen.extend(int(frame.float().mean().round()) for batch in batches for frame in batch)
        return {"features": np.zeros((frames, 1), np.float16)}

    reading = Reading(**{**READING.__dict__, "fps": 1.0})
    run([Video("video41", source, "test")], FeatureStore(tmp_path / "store"), grey, reading=reading)
    assert seen == list(range(12))
    before = identity(source)
    files[3].write_bytes(files[4].read_bytes())
    assert identity(source) != before


def test_no_thread_reads_on_when_encoding_is_interrupted(videos, tmp_path):
    """While the error is still on its way: a thread that decodes when the interpreter goes down aborts it."""

    def interrupt(batches, frames, duration, video):
        next(batches)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as ended:
        run(videos, FeatureStore(tmp_path / "store"), interrupt, reading=replace(READING, batch=1, fps=25.0))
    reading = [thread.name for thread in threading.enumerate() if thread.name in ("decode 0", "decode 1")]
    assert ended.tb is not None
    assert reading == []


def test_stored_features_that_may_not_be_read_are_made_anew(videos, tmp_path, monkeypatch, caplog):
    store = FeatureStore(tmp_path / "store")
    run(videos, store)

    def refuse_to_look(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(type(tmp_path), "exists", refuse_to_look)
    assert store.load({"video": "video0"}) is None
    assert "is unreadable" in caplog.text
