import pytest
from support.benchmark_trees import touch

from xclip_module.datasets.retrieval.annotation_files import find_file, read_table
from xclip_module.errors import DataError


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
