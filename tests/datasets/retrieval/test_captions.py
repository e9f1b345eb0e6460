"""Annotation files as people have them: broken or incomplete."""

import pickle

import pytest
from support.benchmark_trees import plant

from xclip_module.datasets.retrieval.captions import (
    read_lsmdc,
    read_msrvtt_train,
    read_msvd,
)
from xclip_module.errors import DataError


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
