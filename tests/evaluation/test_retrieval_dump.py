"""The files that a retrieval run leaves hold its numbers and any text."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xclip_module.evaluation.retrieval import ranks, top_videos
from xclip_module.evaluation.retrieval_dump import ranks_csv, similarity_archive
from xclip_module.evaluation.retrieval_files import read_similarity

# Three captions for each of twelve videos.
OWNER = np.repeat(np.arange(12), 3)
SIMILARITY = np.random.default_rng(1).standard_normal((36, 12), np.float32)


def read_back(text):
    names = dict.fromkeys(("text", "video", *(f"top{place}" for place in range(1, 6))), str)
    return pd.read_csv(io.StringIO(text), dtype=names, keep_default_na=False)


FOREIGN = [
    '"quoted", twice ""',
    "two\nlines\r\nand\rmore",
    "NA",
    " spaces ",
    "007",
    "",
    "ünïcödé 手術 😀",
    "=1+1;'\\n,",
]


def test_foreign_text_survives_the_csv():
    similarity = np.random.default_rng(0).standard_normal((8, 8), np.float32)
    found = read_back(ranks_csv(similarity, None, texts=FOREIGN, videos=FOREIGN[::-1]))
    assert found["text"].tolist() == FOREIGN
    assert found["video"].tolist() == FOREIGN[::-1]
    assert found["query"].tolist() == list(range(8))
    assert found["rank"].tolist() == (ranks(similarity).t2v + 1).tolist()
    best = top_videos(similarity, 5)
    for place in range(5):
        assert found[f"top{place + 1}"].tolist() == [FOREIGN[::-1][column] for column in best.videos[:, place]]
        assert (found[f"top{place + 1}_score"].to_numpy(np.float32) == best.scores[:, place]).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_any_text_survives_the_csv(texts):
    found = read_back(ranks_csv(np.eye(len(texts)), None, texts=texts, videos=texts))
    assert found["text"].tolist() == found["video"].tolist() == found["top1"].tolist() == texts


def test_few_videos_leave_cells_empty_and_half_a_surrogate_is_escaped():
    text = ranks_csv(np.array([[1, 2]]), [0], texts=["a \ud800"], videos=["x", "y"])
    head, line = text.splitlines()
    assert head.split(",")[:6] == ["query", "text", "video", "rank", "top1", "top1_score"]
    assert line == '0,"a \\ud800","x",2,"y",2,"x",1,,,,,,'
    assert text.encode()


def test_the_archive_is_judged_by_the_command_and_the_same_twice(tmp_path):
    names = {"texts": [f"caption {row} 手術" for row in range(36)], "videos": [f"v{column}" for column in range(12)]}
    content = similarity_archive(SIMILARITY, OWNER, **names)
    (tmp_path / "similarity.npz").write_bytes(content)
    found = read_similarity(tmp_path / "similarity.npz")
    assert (found.similarity == SIMILARITY).all()
    assert found.similarity.dtype == np.float32
    assert found.text_to_video.tolist() == OWNER.tolist()
    with np.load(tmp_path / "similarity.npz", allow_pickle=False) as archive:
        assert {key: archive[key].tolist() for key in names} == names
    assert content == similarity_archive(SIMILARITY, OWNER, **names)


@pytest.mark.parametrize("write", [ranks_csv, similarity_archive])
def test_names_must_be_as_many_as_rows_and_columns(write):
    with pytest.raises(ValueError, match=r"1 texts, 2 videos: similarity is \(2, 2\)"):
        write(np.eye(2), None, texts=["a"], videos=["x", "y"])
