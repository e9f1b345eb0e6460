import pytest
from support.benchmark_trees import plant, touch

from xclip_module.datasets.retrieval.benchmarks import BENCHMARKS, Benchmark, Split
from xclip_module.datasets.retrieval.captions import (
    msrvtt_names,
    read_mmaction2,
)
from xclip_module.datasets.retrieval_check import main


def check(capsys, *words):
    code = main(list(map(str, words)))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_check_says_what_is_missing_and_what_should_be_there(tmp_path, capsys):
    annotations, videos = plant("lsmdc", tmp_path)
    lines = "".join(f"gone{n}\ta\tb\tc\td\tx\n" for n in range(7))
    (annotations / "LSMDC16_annos_val.csv").write_text(lines)
    code, out, _ = check(capsys, "lsmdc", f"--annotations={annotations}", f"--videos={videos}")
    assert code == 3
    assert "train: 1 of 3 videos missing or empty: 9999_Missing_00.00.01.000-00.00.04.000" in out
    assert "val: 7 of 7 videos missing or empty: gone0, gone1, gone2, gone3, gone4 …" in out
    assert "test: 2 texts in LSMDC16_challenge_1000_publictect.csv, expected 1000" in out
    header, *rows = (line.split() for line in out.split("\n\n")[0].splitlines())
    assert header == ["split", "texts", "known", "texts", "videos", "known", "videos", "found", "missing", "pairs"]
    assert [row[:7] for row in rows] == [
        ["train", "4", "101079", "3", "-", "2", "1"],
        ["val", "7", "7408", "7", "-", "0", "7"],
        ["test", "2", "1000", "2", "1000", "2", "0"],
    ]


def test_the_check_of_a_complete_copy_is_content(tmp_path, capsys, monkeypatch):
    splits = {"test": Split(read_mmaction2, "test.json", 2, 3), "train": Split(read_mmaction2, "train.json", 0, 1)}
    monkeypatch.setitem(BENCHMARKS, "small", Benchmark(splits, "test", msrvtt_names))
    (tmp_path / "test.json").write_text('{"video0.mp4": ["a", "b"], "video1.mp4": ["c"]}')
    (tmp_path / "train.json").write_text('{"video2.mp4": ["d"]}')
    videos = touch(tmp_path / "videos", "video0.mp4", "video1.mp4", "video2.mp4")
    words = ("small", f"--annotations={tmp_path}", f"--videos={videos}")
    code, out, _ = check(capsys, *words)
    assert (code, out.split("\n\n")[1]) == (0, "no misfits\n")
    (videos / "video0.mp4").unlink()
    code, out, _ = check(capsys, *words)
    assert (code, out.split("\n\n")[1]) == (3, "test: 1 of 2 videos missing or empty: video0\n")


def test_the_check_goes_on_where_one_splits_files_are_missing(tmp_path, capsys):
    annotations, videos = plant("didemo", tmp_path)
    (annotations / "train_data.json").unlink()
    code, out, _ = check(capsys, "didemo", f"--annotations={annotations}", f"--videos={videos}")
    assert code == 3
    assert "train: annotation file not found: " in out
    assert "test: 1 of 4 videos missing or empty: 44@missing.avi" in out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "usage: python -m xclip_module.datasets.retrieval_check NAME"),
        (("msvd", "--videos={tmp}"), 2, "usage"),
        (("msvd", "--videos={tmp}", "--annotation={tmp}"), 2, "usage"),
        (("msvdd", "--videos={tmp}", "--annotations={tmp}"), 2, "unknown benchmark msvdd: did you mean msvd"),
        (("msvd", "--videos={tmp}/no", "--annotations={tmp}"), 3, "video folder not found"),
        (("msvd", "--videos={tmp}", "--annotations={tmp}/no"), 3, "annotation folder not found"),
    ],
)
def test_the_check_answers_a_wrong_call_in_one_line(tmp_path, capsys, words, code, message):
    found, _, err = check(capsys, *(word.format(tmp=tmp_path) for word in words))
    assert found == code
    assert message in err
