"""The command's answers to good and broken files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xclip_module.errors import DataError
from xclip_module.evaluation.retrieval import PROTOCOLS, main, ranks, retrieval_metrics

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
