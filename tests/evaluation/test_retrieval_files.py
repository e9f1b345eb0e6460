"""The command's answers to good and broken files, and the files that a retrieval run leaves."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xclip_module.errors import DataError
from xclip_module.evaluation.retrieval import PROTOCOLS, main, ranks, retrieval_metrics, top_videos
from xclip_module.evaluation.retrieval_dump import ranks_csv, similarity_archive
from xclip_module.evaluation.similarity_files import read_similarity

KEYS = [f"{direction}/{name}" for direction in ("t2v", "v2t") for name in ("R@1", "R@5", "R@10", "MdR", "MnR")]
# Three captions for each of twelve videos.
OWNER = np.repeat(np.arange(12), 3)
SIMILARITY = np.random.default_rng(1).standard_normal((36, 12), np.float32)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_the_command_prints_percent_beside_chance(tmp_path):
    file = saved(tmp_path / "s.npz", similarity=np.array([[3.0, 1, 2, 0], [0, 1, 2, 3]]), text_to_video=[0, 1])
    done = subprocess.run(
        [sys.executable, "-m", "xclip_module.evaluation.retrieval", file],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["percent", "R@1", "R@5", "R@10", "MdR", "MnR"]
    assert rows[1] == ["t2v", "50.00", "100.00", "100.00", "2.0", "2.0"]
    assert rows[2] == ["chance", "25.00", "100.00", "100.00", "2.5", "2.5"]
    assert rows[4] == ["chance", "50.00", "100.00", "100.00", "1.5", "1.5"]
    assert "videos without a text: 2, candidates of t2v and no part of v2t" in done.stdout
    assert not done.stderr


def test_the_command_prints_one_json_object_of_fractions(tmp_path, capsys):
    file = saved(tmp_path / "s.npz", similarity=SIMILARITY, text_to_video=OWNER)
    for protocol in PROTOCOLS:
        assert main([str(file), "--json", "--v2t", protocol]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found == retrieval_metrics(SIMILARITY, OWNER, protocol=protocol)
        assert list(found) == KEYS


def broken_files(folder):
    """name -> (path, exit code, words of the error)."""
    eye = np.eye(3)
    (folder / "text.npz").write_text("query,video\n")
    (folder / "empty.npz").write_bytes(b"")
    (folder / "zip.npz").write_bytes(saved(folder / "whole.npz", similarity=np.eye(30)).read_bytes()[:-200])
    np.save(folder / "bare.npy", eye)
    damaged = bytearray((folder / "whole.npz").read_bytes())
    damaged[400] ^= 255
    (folder / "damaged.npz").write_bytes(damaged)
    cases = {
        "other keys": ({"sim": eye, "scores": eye}, 3, "no key similarity", "found sim, scores"),
        "no keys": ({}, 3, "no key similarity", "no key at all"),
        "vector": ({"similarity": eye[0]}, 3, "wrong similarity", "found shape 3, expected texts × videos"),
        "number": ({"similarity": 1.0}, 3, "wrong similarity", "a single number"),
        "no texts": ({"similarity": np.empty((0, 3))}, 3, "wrong similarity", "found shape 0×3"),
        "words": ({"similarity": [["a"]]}, 3, "wrong similarity", "found <U1"),
        "complex": ({"similarity": eye * 1j}, 3, "wrong similarity", "found complex128"),
        "objects": ({"similarity": np.array([[{}]])}, 3, "unreadable similarity", "pickled"),
        "nan": ({"similarity": [[1, np.nan], [0, 1]]}, 8, "NaN similarity", "1 row (0) and 1 column (1)"),
        "no index": ({"similarity": eye[:2]}, 3, "not known", "2 texts × 3 videos without text_to_video"),
        "too high": (
            {"similarity": eye, "text_to_video": [0, 3, 7]},
            3,
            "wrong text_to_video",
            "3 for text 1, expected",
        ),
        "negative": ({"similarity": eye, "text_to_video": [0, 1, -1]}, 3, "wrong text_to_video", "-1 for text 2"),
        "too few": ({"similarity": eye, "text_to_video": [0, 1]}, 3, "wrong text_to_video", "shape 2, expected 3"),
        "fractions": ({"similarity": eye, "text_to_video": [0, 1, 1.5]}, 3, "wrong text_to_video", "found float64"),
    }
    found = {}
    for name, (arrays, *rest) in cases.items():
        found[name] = (saved(folder / f"{name}.npz", **arrays), *rest)
    found["text"] = (folder / "text.npz", 3, "not an .npz archive", "neither a zip archive nor an array")
    found["empty"] = (folder / "empty.npz", 3, "not an .npz archive", "No data left")
    found["cut off"] = (folder / "zip.npz", 3, "not an .npz archive", "File is not a zip file")
    found["bare"] = (folder / "bare.npy", 3, "not an .npz archive", "one bare array")
    found["damaged"] = (folder / "damaged.npz", 3, "unreadable similarity", "CRC")
    found["missing"] = (folder / "missing.npz", 3, "unreadable file", "No such file")
    found["folder"] = (folder, 3, "unreadable file", "directory")
    return found


def test_a_broken_file_is_one_line_that_names_it_and_the_documented_code(tmp_path, capsys):
    for name, (path, code, *words) in broken_files(tmp_path).items():
        assert main([str(path)]) == code, name
        printed = capsys.readouterr()
        assert not printed.out
        assert printed.err.startswith("error: "), name
        assert printed.err.count("\n") == 1
        for word in [str(path), *words]:
            assert word in printed.err, name


@pytest.mark.parametrize("broken", [np.eye(2) > 0, np.zeros((2, 2), "datetime64[s]"), np.zeros((2, 2, 2))])
def test_callers_hear_the_same(broken):
    with pytest.raises(DataError, match="wrong similarity"):
        ranks(broken)


# The dump -------------------------------------------------------------------------------------------------------------


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
