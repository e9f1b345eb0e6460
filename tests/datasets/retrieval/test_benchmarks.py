"""The benchmarks' sentences, videos and their order, as the released loaders have them."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from support.benchmark_trees import LOADERS, VIDEOS, plant, touch

from xclip_module.datasets.retrieval.benchmarks import BENCHMARKS, load_split
from xclip_module.datasets.retrieval.video_index import index_videos
from xclip_module.errors import ConfigError

MERGES = os.environ.get("CLIP_MERGES", "")
# Names of benchmark, tree and split -> the released loader's name.
GOLDEN = {
    ("msrvtt-9k", "msrvtt", "train"): "msrvtt_train",
    ("msrvtt-9k", "msrvtt", "test"): "msrvtt_test",
    ("msvd", "msvd", "train"): "msvd_train",
    ("msvd", "msvd", "test"): "msvd_test",
    ("lsmdc", "lsmdc", "train"): "lsmdc_train",
    ("lsmdc", "lsmdc", "test"): "lsmdc_test",
    ("didemo", "didemo", "test"): "didemo_test",
    ("activitynet", "activitynet", "train"): "activitynet_train",
    ("activitynet", "activitynet", "val"): "activitynet_val",
}
# The released MSR-VTT loaders keep no list of pairs; their token ids say that it is this one.
MSRVTT_PAIRS = {
    "msrvtt_train": [
        ["video3", "someone sings"],
        ["video0", "a cat sleeps on a sofa"],
        ["video0", "the cat wakes up"],
        ["video3", "a singer on stage with a very long caption that goes past the limit of sixteen tokens for sure"],
    ],
    "msrvtt_test": [["video1", "a red ball rolls"], ["video2", "two people talk, then leave"]],
    "msvd_train": [["vidC_2_4", "a girl dances"]],
}


@pytest.fixture
def load(tmp_path):
    """One split of a miniature."""

    def split(name, tree, part):
        annotations, videos = plant(tree, tmp_path)
        return load_split(name, part, annotations=annotations, videos=index_videos(videos))

    return split


def released_pairs(loader):
    """[[video id, sentence], …] as the released loader joins and orders them."""
    golden = LOADERS[loader]
    if loader in MSRVTT_PAIRS:
        return MSRVTT_PAIRS[loader]
    if "sentences" in golden:
        return golden["sentences"]
    if loader.startswith("didemo"):
        return [[video, golden["texts"][video][number]] for video, number in golden["pairs"]]
    if loader.startswith("activitynet"):
        return [[video, golden["captions"][video][0]] for video, _ in golden["pairs"]]
    return golden["pairs"]


@pytest.mark.parametrize(("where", "loader"), GOLDEN.items(), ids=GOLDEN.values())
def test_pairs_and_their_order_are_the_released_loaders(load, where, loader):
    found = load(*where).only_found()
    assert [list(pair) for pair in found.pairs] == released_pairs(loader)
    assert len(found.texts) == LOADERS[loader]["len"]


@pytest.mark.skipif(not MERGES, reason="CLIP_MERGES names no merges file")
@pytest.mark.parametrize(("where", "loader"), GOLDEN.items(), ids=GOLDEN.values())
def test_token_ids_are_the_released_loaders(load, where, loader):
    from xclip_module.models import load_tokenizer

    tokens = load_tokenizer(Path(MERGES))(load(*where).only_found().texts, 16)
    assert tokens.input_ids.tolist() == LOADERS[loader]["ids"]
    assert tokens.mask.int().tolist() == LOADERS[loader]["mask"]


def test_caption_counts_add_up_to_the_released_cut_off_points(load):
    found = load("msvd", "msvd", "test")
    assert np.bincount(found.text_to_video).tolist() == [3, 1]
    assert np.cumsum(np.bincount(found.text_to_video)).tolist() == LOADERS["msvd_test"]["cut_off_points"]
    assert len(found.videos) == LOADERS["msvd_test"]["video_num"]


def test_a_video_whose_sentences_are_apart_keeps_them_all(load):
    """MSR-VTT's sentences need not be grouped; LSMDC's clips come again."""
    found = load("msrvtt-9k", "msrvtt", "train")
    assert found.videos == ("video3", "video0")
    assert found.text_to_video.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("name", "part", "key"), [("didemo", "test", "didemo_test"), ("activitynet", "val", "activitynet_val")]
)
def test_paragraph_videos_are_cut_as_released(load, name, part, key):
    found = load(name, name, part)
    golden = LOADERS[key]
    for video, span in zip(found.videos, found.spans, strict=True):
        start, end = (
            golden["captions"][video][1:] if name == "activitynet" else (e[0] for e in golden["start_end"][video])
        )
        assert span == (start, end)


def test_clip_videos_are_looked_at_whole(load):
    assert load("lsmdc", "lsmdc", "train").spans == (None, None, None)


def test_a_video_without_file_is_named_and_leaves_with_its_texts(load):
    found = load("didemo", "didemo", "test")
    assert found.missing == ("44@missing.avi",)
    assert set(found.files) == set(found.videos) - {"44@missing.avi"}
    smaller = found.only_found()
    assert len(smaller.texts) == len(found.texts) - 1
    assert smaller.missing == ()
    assert [smaller.videos[n] for n in smaller.text_to_video] == [video for video, _ in smaller.pairs]
    assert len(smaller.spans) == len(smaller.videos)


def test_taking_videos_away_equals_filtering_the_pairs(tmp_path):
    annotations, videos = plant("msvd", tmp_path)
    (videos / "vidB.x_0_9.avi").unlink()
    found = load_split("msvd", "test", annotations=annotations, videos=index_videos(videos))
    expected = [pair for pair in found.pairs if pair[0] != "vidB.x_0_9"]
    assert list(found.only_found().pairs) == expected
    assert found.only_found().text_to_video.tolist() == [0]


def test_ids_without_a_caption_are_named(tmp_path):
    annotations, videos = plant("activitynet", tmp_path)
    ids = ["v_no_caption0", *json.loads((annotations / "val_ids.json").read_text())]
    (annotations / "val_ids.json").write_text(json.dumps([*ids, ids[1]]))
    found = load_split("activitynet", "val", annotations=annotations, videos=index_videos(videos))
    assert found.without_text == ("v_no_caption0",)
    assert [list(p) for p in found.only_found().pairs] == released_pairs("activitynet_val")


def test_the_digest_tells_order_and_text(load, tmp_path):
    found = load("msvd", "msvd", "test")
    swapped = found._replace(texts=found.texts[::-1])
    assert len({found.digest, swapped.digest}) == 2
    assert found.protocol == f"msvd test, 4 texts, 2 videos, {found.digest}"
    assert "3 videos (1 without file)" in found._replace(videos=("a", "b", "c"), missing=("c",)).protocol


def test_mmaction2s_files_give_the_pairs_of_the_files_they_are_made_from(load, tmp_path):
    """Made as prepare_msvd.py makes them: file name -> captions, in the order of the list."""
    found = load("msvd", "msvd", "test")
    prepared = {f"{video}.avi": [text for v, text in found.pairs if v == video] for video in found.videos}
    folder = tmp_path / "prepared"
    folder.mkdir()
    (folder / "test.json").write_text(json.dumps(prepared))
    again = load_split("msvd-mmaction2", "test", annotations=folder, videos=index_videos(tmp_path / "videos"))
    assert again.pairs == found.pairs
    assert again.files == found.files


def test_microsofts_two_files_stand_in_for_the_joined_one(tmp_path):
    annotations, videos = plant("msrvtt", tmp_path)
    whole = load_split("msrvtt-9k", "train", annotations=annotations, videos=index_videos(videos))
    joined = json.loads((annotations / "MSRVTT_data.json").read_text())
    (annotations / "MSRVTT_data.json").unlink()
    (annotations / "official").mkdir()
    for name, part in (("train_val", slice(0, 3)), ("test", slice(3, None))):
        path = annotations / "official" / f"{name}_videodatainfo.json"
        path.write_text(json.dumps({"sentences": joined["sentences"][part]}))
    assert load_split("msrvtt-9k", "train", annotations=annotations, videos=index_videos(videos)).pairs == whole.pairs


def test_published_counts_are_consistent():
    """Paragraphs: one text a video; tests: the sizes that every paper states."""
    for name in ("didemo", "activitynet"):
        assert all(split.videos == split.texts for split in BENCHMARKS[name].splits.values())
    sizes = {name: benchmark.splits[benchmark.reported].videos for name, benchmark in BENCHMARKS.items()}
    assert sizes == {
        "msrvtt-9k": 1000,
        "msrvtt-7k": 1000,
        "msvd": 670,
        "lsmdc": 1000,
        "didemo": 1004,
        "activitynet": 4917,
        "msrvtt-9k-mmaction2": 1000,
        "msrvtt-7k-mmaction2": 1000,
        "msvd-mmaction2": 670,
    }


def test_unknown_names_are_answered_with_the_known_ones(tmp_path):
    index = index_videos(touch(tmp_path, "a.mp4"))
    with pytest.raises(ConfigError, match="unknown benchmark msrvtt9k: did you mean msrvtt-9k"):
        load_split("msrvtt9k", "test", annotations=tmp_path, videos=index)
    with pytest.raises(ConfigError, match="activitynet has no split test: it has train, val"):
        load_split("activitynet", "test", annotations=tmp_path, videos=index)


@pytest.mark.parametrize("name", VIDEOS)
def test_every_file_of_a_miniature_is_some_video(tmp_path, name):
    """No file is overlooked: the sum over all splits is every file."""
    annotations, videos = plant(name, tmp_path)
    index = index_videos(videos)
    benchmark = "msrvtt-9k" if name == "msrvtt" else name
    splits = (
        load_split(benchmark, part, annotations=annotations, videos=index) for part in BENCHMARKS[benchmark].splits
    )
    found = set(itertools.chain.from_iterable(split.files.values() for split in splits))
    assert found == {path for path in videos.rglob("*") if path.is_file()}
