"""Annotation files and video folders as people have them: broken, incomplete, under other names."""

import io
import json
import os
import pickle

import pytest
from support.benchmark_trees import plant, touch

from xclip_module.datasets.retrieval.annotation_files import find_file, read_table
from xclip_module.datasets.retrieval.benchmarks import BENCHMARKS, Benchmark, Split
from xclip_module.datasets.retrieval.captions import (
    msrvtt_names,
    own_name,
    read_lsmdc,
    read_mmaction2,
    read_msrvtt_train,
    read_msvd,
)
from xclip_module.datasets.retrieval.paragraphs import activitynet_names, didemo_names, read_activitynet, read_didemo
from xclip_module.datasets.retrieval.plain_pickle import read_plain_pickle
from xclip_module.datasets.retrieval.video_index import find_videos, index_videos
from xclip_module.datasets.retrieval_check import main
from xclip_module.errors import DataError

RAN = []


def run_me(word):
    RAN.append(word)


class Calls:
    """Pickled as "call this function"."""

    def __init__(self, function, *words):
        self.call = (function, words)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, protocol):
    path = tmp_path / "raw-captions.pkl"
    payload = {"vidA": [["a", "dog"]], "vidB": Calls(run_me, "ran")}
    path.write_bytes(pickle.dumps(payload, protocol))
    with pytest.raises(DataError, match=rf"pickle refused: .*raw-captions.pkl: it asks for {__name__}.run_me"):
        read_plain_pickle(path)
    assert RAN == []
    pickle.Unpickler(io.BytesIO(path.read_bytes())).load()
    assert RAN == ["ran"], "it does run where nobody refuses"
    RAN.clear()


def test_a_pickle_that_would_touch_the_disk_touches_nothing(tmp_path):
    path, made = tmp_path / "raw-captions.pkl", tmp_path / "made"
    path.write_bytes(pickle.dumps(Calls(os.mkdir, str(made))))
    (tmp_path / "test_list.txt").write_text("vidA\n")
    with pytest.raises(DataError, match="pickle refused"):
        read_msvd(tmp_path, "test")
    assert not made.exists()


@pytest.mark.parametrize("value", [{1, 2}, bytearray(b"x"), complex(1, 2), ValueError("x")])
def test_even_harmless_classes_are_no_plain_values(tmp_path, value):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, 2))
    with pytest.raises(DataError, match="pickle refused"):
        read_plain_pickle(tmp_path / "x.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_come_back(tmp_path, protocol):
    value = {"vidA": [["ein", "Häuschen"], []], "n": (1, 2.5, None, True, -(10**30))}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol))
    assert read_plain_pickle(tmp_path / "x.pkl") == value


def test_python_2s_text_is_read_as_utf8(tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"(dp0\nS'vidA'\np1\n(lp2\n(lp3\nS'na\\xc3\\xafve'\np4\naas.")
    assert read_plain_pickle(tmp_path / "x.pkl") == {"vidA": [["naïve"]]}


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"not a pickle", b"\x80\x04", b"\x80\x63.", b"PK\x03\x04zip", b"\x80\x02]q\x00(", b"h\xff."),
        *(b"\x80\x02K\x01b.", b"\x80\x02X\xff\xff\xff\x7fshort.", b"\x80\x04\x82\x01."),
        b"\x80\x02(K\x01K\x02K\x03d.",
    ],
)
def test_a_damaged_pickle_is_one_line(tmp_path, data):
    (tmp_path / "x.pkl").write_bytes(data)
    with pytest.raises(DataError, match=r"unreadable pickle: .*x\.pkl: damaged or no pickle|pickle refused") as caught:
        read_plain_pickle(tmp_path / "x.pkl")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        (["x"], "found .*, expected an object"),
        ({"vidB": [["a"]]}, "no captions of vidA: .*pkl: but .*test_list.txt lists it"),
        ({"vidA": []}, r"wrong captions: .*pkl: vidA: found '\[\]'"),
        ({"vidA": ["a dog"]}, "wrong caption: .*pkl: vidA: found 'a dog', expected a list of words"),
        ({"vidA": [["a", 3]]}, "wrong caption: .*expected a list of words"),
    ],
)
def test_wrong_captions_name_file_and_video(tmp_path, captions, message):
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps(captions))
    (tmp_path / "test_list.txt").write_text("vidA\n")
    with pytest.raises(DataError, match=message):
        read_msvd(tmp_path, "test")


def test_blank_lines_and_windows_line_ends_in_a_list_do_not_matter(tmp_path):
    (tmp_path / "raw-captions.pkl").write_bytes(pickle.dumps({"-A_1_2": [["a", "dog"]], "B": [["b"]]}))
    (tmp_path / "test_list.txt").write_bytes(b"\xef\xbb\xbf-A_1_2\r\n\r\nB")
    assert read_msvd(tmp_path, "test").pairs == (("-A_1_2", "a dog"), ("B", "b"))
    (tmp_path / "test_list.txt").write_text("B\nB\n")
    with pytest.raises(DataError, match=r"B listed twice: .*line 2: first in .*line 1"):
        read_msvd(tmp_path, "test")
    (tmp_path / "test_list.txt").write_text("\n")
    with pytest.raises(DataError, match="empty list"):
        read_msvd(tmp_path, "test")


def test_a_listed_msrvtt_video_without_sentence_is_an_error(tmp_path):
    """The released loader trains on less without a word, as with one of Microsoft's two files."""
    annotations, _ = plant("msrvtt", tmp_path)
    (annotations / "MSRVTT_train.9k.csv").write_text("video_id\nvideo0\nvideo9\n")
    with pytest.raises(
        DataError, match=r"1 of the 2 videos of MSRVTT_train.9k.csv have no sentence: video9; try: the co"
    ):
        read_msrvtt_train(annotations, "MSRVTT_train.9k.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"videos": []}', "no sentences: .*found the keys videos"),
        ('{"sentences": {}}', "expected a list"),
        ('{"sentences": [{"caption": "x"}]}', r"no video_id: .*sentences\[0\]"),
        ('{"sentences": [{"video_id": "video0", "caption": 3}]}', r"sentences\[0\]: caption: found '3', expected text"),
        ("{", "not JSON"),
        ("[" * 99999, "not JSON"),
        ("[]", "expected an object"),
    ],
)
def test_wrong_msrvtt_json_names_file_and_entry(tmp_path, text, message):
    annotations, _ = plant("msrvtt", tmp_path)
    (annotations / "MSRVTT_data.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_msrvtt_train(annotations, "MSRVTT_train.9k.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,sentence\n", "wrong header: .*line 1: found 'video, sentence'; missing video_id"),
        ("video_id,sentence\nvideo1,two people, talking\n", "wrong line: .*line 2: found 3 values, expected 2"),
        ("", "wrong header"),
        (f'video_id,sentence\nvideo1,"{"x" * 200000}"\n', "unreadable table: .*line 2: field larger"),
    ],
)
def test_wrong_tables_name_file_and_line(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_table(tmp_path / "x.csv", ("video_id", "sentence")))


def test_a_sentence_stays_the_text_it_is(tmp_path):
    """pandas would make numbers of these."""
    (tmp_path / "x.csv").write_text('video_id,sentence\nvideo1,nan\nvideo2,"NA"\nvideo3,1.0\n\n')
    assert list(read_table(tmp_path / "x.csv", ("video_id", "sentence"))) == [
        ("video1", "nan"),
        ("video2", "NA"),
        ("video3", "1.0"),
    ]


def test_lsmdc_lines_have_six_columns(tmp_path):
    path = tmp_path / "LSMDC16_annos_val.csv"
    path.write_text("clip\ta\tb\tc\td\tHe sits\u2028down.  \n\nclip\ta\tb\tc\td\tonce\tmore\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"LSMDC16_annos_val.csv, line 3: found 7 columns .*paraphrased"):
        read_lsmdc(tmp_path, path.name)
    path.write_text(path.read_text(encoding="utf-8").split("\n")[0], encoding="utf-8")
    assert read_lsmdc(tmp_path, path.name).pairs == (("clip", "He sits\u2028down."),)
    path.write_bytes(b"clip\ta\tb\tc\td\tcaf\xe9\n")
    with pytest.raises(DataError, match="not UTF-8 text.*try: iconv"):
        read_lsmdc(tmp_path, path.name)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"duration": "long", "sentences": ["x"]}, "val_1.json: v_a: duration: found 'long', expected a number"),
        ({"duration": float("nan"), "sentences": ["x"]}, "wrong duration"),
        ({"duration": 3}, "no sentences: .*v_a"),
        ({"duration": 3, "sentences": [None]}, "expected text"),
    ],
)
def test_wrong_activitynet_entries_are_named(tmp_path, value, message):
    (tmp_path / "val_ids.json").write_text('["v_a"]')
    (tmp_path / "val_1.json").write_text(json.dumps({"v_a": value}))
    with pytest.raises(DataError, match=message):
        read_activitynet(tmp_path, "val")


def test_a_list_and_captions_of_different_splits_are_an_error(tmp_path):
    (tmp_path / "test_list.txt").write_text("a.mp4\n")
    (tmp_path / "test_data.json").write_text('[{"video": "b.mp4", "description": "x"}]')
    with pytest.raises(DataError, match="no video of the list has a sentence"):
        read_didemo(tmp_path, "test")


def test_an_annotation_file_is_found_below_unless_two_are(tmp_path):
    touch(tmp_path, "a/x.json", "b/y.json")
    assert find_file(tmp_path, "x.json") == tmp_path / "a" / "x.json"
    touch(tmp_path, "b/x.json")
    with pytest.raises(DataError, match=r"two files x.json: .*a/x.json: and .*b/x.json"):
        find_file(tmp_path, "x.json")
    touch(tmp_path, "x.json")
    assert find_file(tmp_path, "x.json") == tmp_path / "x.json"
    with pytest.raises(DataError, match="annotation file not found: .*z.json"):
        find_file(tmp_path, "z.json")
    with pytest.raises(DataError, match="annotation folder not found"):
        find_file(tmp_path / "nowhere", "x.json")


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
