"""Real annotation files against what the released loaders make of them; golden/benchmarks/README.md says how to run."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from xclip_module.datasets.retrieval.benchmarks import load_split
from xclip_module.datasets.retrieval.video_index import index_videos
from xclip_module.datasets.retrieval_check import check_benchmark

FOLDER = Path(os.environ.get("RETRIEVAL_ANNOTATIONS", "nowhere"))
MERGES = os.environ.get("CLIP_MERGES", "")
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="RETRIEVAL_ANNOTATIONS names no folder")
needs_merges = pytest.mark.skipif(not MERGES, reason="CLIP_MERGES names no merges file")
# Benchmark, split -> the released loader's list.
LISTS = {
    ("msrvtt-9k", "train"): "clip4clip_msrvtt_train9k",
    ("msrvtt-9k", "test"): "clip4clip_msrvtt_test_1kA",
    ("msvd", "train"): "clip4clip_msvd_train",
    ("msvd", "val"): "clip4clip_msvd_val",
    ("msvd", "test"): "clip4clip_msvd_test",
    ("didemo", "val"): "clip4clip_didemo_val",
    ("didemo", "test"): "clip4clip_didemo_test",
    ("activitynet", "train"): "clip4clip_activitynet_train",
    ("activitynet", "val"): "clip4clip_activitynet_val",
}


@pytest.fixture(scope="module")
def annotations(tmp_path_factory):
    """The folder of one benchmark, its files under the names that the guides give them."""
    root = tmp_path_factory.mktemp("real")

    def prepare(name):
        folder = root / name
        if folder.is_dir():
            return folder
        folder.mkdir()
        if name.endswith("mmaction2"):
            for path in (FOLDER / "mmaction2_prepared").glob("*.json"):
                (folder / path.name.removeprefix(f"{name.split('-')[0]}_")).symlink_to(path)
            return folder
        for path in (FOLDER / name.split("-")[0]).rglob("*"):
            target = folder / path.name.replace(".RECONSTRUCTED", "")
            if path.is_file() and not target.exists():
                target.symlink_to(path)
        return folder

    return prepare


@pytest.fixture(scope="module")
def load(annotations, tmp_path_factory):
    index = index_videos(tmp_path_factory.mktemp("videos"))
    return lambda name, split: load_split(name, split, annotations=annotations(name), videos=index)


def released(name):
    return json.loads((FOLDER / "loader_pairs" / f"{name}.json").read_text())


def clip_tokenizer():
    """Imported where it is needed: transformers takes seconds."""
    from xclip_module.models import load_tokenizer

    return load_tokenizer(Path(MERGES))


def sha(pairs):
    return hashlib.sha256("\n".join(f"{video}\t{text}" for video, text in pairs).encode()).hexdigest()


@pytest.mark.parametrize(("where", "name"), LISTS.items(), ids=LISTS.values())
def test_pairs_and_their_order_are_the_released_loaders(load, where, name):
    found, golden = load(*where), released(name)
    assert len(found.texts) == golden["n_pairs"]
    assert len(found.videos) == golden["n_videos"]
    assert [list(pair) for pair in found.pairs[:15]] == golden["first"][:15]
    assert [list(pair) for pair in found.pairs[-5:]] == golden["last"][-5:]
    assert sha(found.pairs) == golden["sha256_of_video<TAB>caption_lines"]
    assert golden["sha256_of_video<TAB>caption_lines"].startswith(found.digest)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_caption_counts_are_the_released_cut_off_points(load, split):
    golden = released(f"clip4clip_msvd_{split}")
    ends = np.cumsum(np.bincount(load("msvd", split).text_to_video))
    assert ends[:5].tolist() == golden["cut_off_points_first5"]
    assert ends[-1] == golden["cut_off_points_last"]


@pytest.mark.parametrize(("where", "name"), LISTS.items(), ids=LISTS.values())
def test_spans_are_the_released_starts_and_ends(load, where, name):
    found, golden = load(*where), released(name)
    expected = golden.get("start_end_first", [golden.get("start_end")] * 5)
    assert [list(span) if span else None for span in found.spans[:5]] == expected[:5]


@needs_merges
@pytest.mark.parametrize(("where", "name"), LISTS.items(), ids=LISTS.values())
def test_token_lengths_are_the_released_tokenizers(load, where, name):
    golden = released(name)["clip_token_length_with_SOT_EOT"]
    texts = load(*where).texts
    texts = list(dict.fromkeys(texts)) if golden["of"] != len(texts) else texts
    lengths = clip_tokenizer()(texts, 600).mask.sum(1)
    counts = {f"over_{n}": int((lengths > n).sum()) for n in (32, 64, 77)}
    assert {"max": int(lengths.max()), **counts, "of": len(texts)} == golden


@needs_merges
def test_token_ids_are_the_released_loaders(load):
    golden = released("clip4clip_token_ids_max_words32")
    tokens = clip_tokenizer()(list(golden), 32)
    assert tokens.input_ids.tolist() == [row["ids"] for row in golden.values()]
    assert tokens.mask.int().tolist() == [row["mask"] for row in golden.values()]
    assert load("msrvtt-9k", "test").texts[0] in golden


@pytest.mark.parametrize(
    ("prepared", "original"),
    [(("msrvtt-9k-mmaction2", "test"), ("msrvtt-9k", "test")), (("msvd-mmaction2", "val"), ("msvd", "val"))],
)
def test_mmaction2s_files_hold_the_same_pairs(load, prepared, original):
    assert load(*prepared).pairs == load(*original).pairs


def test_the_made_up_lsmdc_rows_come_out_as_released(tmp_path):
    golden = released("clip4clip_lsmdc_SYNTHETIC_rows")
    name = "LSMDC16_challenge_1000_publictect.csv"
    (tmp_path / name).write_text("\n".join(golden["SYNTHETIC_input_rows"]) + "\n")
    found = load_split("lsmdc", "test", annotations=tmp_path, videos=index_videos(tmp_path))
    assert [list(pair) for pair in found.pairs] == golden["pairs"]


def test_ids_without_captions_are_those_that_activitynet_lacks(load):
    assert [len(load("activitynet", split).without_text) for split in ("train", "val")] == [15, 9]


def test_the_7k_list_has_its_published_size(load):
    found = load("msrvtt-7k", "train")
    assert (len(found.videos), len(found.texts)) == (7010, 140200)
    assert set(np.bincount(found.text_to_video).tolist()) == {20}
    assert found.videos[0] == "video2960"


@pytest.mark.parametrize("name", ["msrvtt-9k", "msrvtt-7k", "msvd", "activitynet"])
def test_the_check_finds_every_number_as_published(annotations, tmp_path, name):
    """All that it has to say is that there are no videos."""
    check = check_benchmark(name, annotations=annotations(name), videos=tmp_path)
    assert len(check.misfits) == len(check.splits)
    assert all("videos missing or empty" in line for line in check.misfits)
