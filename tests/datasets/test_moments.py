import json

import numpy as np
import pytest
from support.barcode import write_video

from xclip_module.config import DataConfig
from xclip_module.datasets.moments import load_moments, load_recordings, read_entries, split_queries
from xclip_module.errors import ConfigError, DataError
from xclip_module.features.store import FeatureStore
from xclip_module.features.video_pass import feature_pass
from xclip_module.run.progress import Progress
from xclip_module.video.reading import Reading


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "sub/b.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_video(tmp_path / name, frames=30)
    return tmp_path


def config(folder, name, text):
    (folder / name).write_text(text)
    return DataConfig(name="moments", root=str(folder), annotations=str(folder / name))


TRIPLETS = """video_id,text,start_frame,end_frame,fps
a,a clip is set,25,50,25
b,the bag is closed,0,10,10
a,a clip is set,75,100,25
"""


def test_the_thesis_triplets_become_moments_in_seconds(folder):
    corpus = load_moments(config(folder, "moments.csv", TRIPLETS))
    assert [query.text for query in corpus.queries] == ["a clip is set", "the bag is closed"]
    assert corpus.moments == {
        "a": {"a clip is set": ((1.0, 2.0), (3.0, 4.0))},
        "b": {"the bag is closed": ((0.0, 1.0),)},
    }
    assert [(video.id, video.source.name, video.split) for video in corpus.videos] == [
        ("a", "a.mp4", "all"),
        ("b", "b.mkv", "all"),
    ]


def test_start_and_end_times_need_no_rate(folder):
    text = "video,query,start_time,end_time\na.mp4,a clip,1.5,2.5\n"
    corpus = load_moments(config(folder, "moments.csv", text))
    assert corpus.moments == {"a.mp4": {"a clip": ((1.5, 2.5),)}}


def test_qvhighlights_lines_become_moments_and_absent_queries_stay_absent(folder):
    lines = [
        {"qid": 1, "vid": "a", "query": "a clip", "duration": 1.2, "relevant_windows": [[0, 0.5], [0.8, 1]]},
        {"qid": 2, "vid": "a", "query": "a bag", "duration": 1.2, "relevant_windows": []},
        {"qid": 3, "vid": "b", "query": "a hook", "duration": 1.2},
    ]
    corpus = load_moments(config(folder, "moments.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n"))
    assert corpus.moments == {"a": {"a clip": ((0.0, 0.5), (0.8, 1.0)), "a bag": ()}, "b": {}}
    assert corpus.videos[0].label_seconds == 1.2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "video,query,start_time\na,x,1\n", r"wrong header: .*line 1: .*missing end_time\|end_frame"),
        ("m.csv", "video,query,start_frame,end_frame\na,x,1,2\n", r"without a rate: .*line 2: .*column fps"),
        ("m.csv", "video,query,start_time,end_time\na,x,1,2\na,,1,2\n", "empty query: .*line 3"),
        ("m.csv", "video,query,start_time,end_time\na,x,2,1\n", r"wrong moment: .*line 2: found 2 to 1 s"),
        ("m.csv", "video,query,start_time,end_time\na,x,one,1\n", r"wrong start_time: .*line 2: found 'one'"),
        ("m.csv", "video,query,start_time,end_time\na,x,nan,1\n", "wrong start_time"),
        ("m.csv", "", "unreadable annotation file"),
        ("m.jsonl", "{", "not JSON: .*line 1"),
        ("m.jsonl", '{"vid": "a"}', "wrong line: .*line 1: missing query; expected an object with vid, query"),
        ("m.jsonl", '{"vid": "a", "query": "x", "relevant_windows": [1, 2]}', "wrong relevant_windows: .*line 1"),
        ("m.jsonl", "\n", "empty annotation file"),
        ("m.jsonl", '{"vid": "a", "query": "x", "duration": -3}', "wrong duration: .*line 1: found -3"),
        ("m.jsonl", '{"vid": "a", "query": "x", "relevant_windows": ["12"]}', "wrong relevant_windows: .*line 1"),
        ("m.jsonl", '{"vid": "a", "query": "x", "relevant_windows": [["1", "5"]]}', "wrong relevant_windows"),
        (
            "m.jsonl",
            '{"vid": "a", "query": "x", "duration": 5, "relevant_windows": [[1, 7]]}',
            "wrong moment: .*line 1: it ends at 7 s, the video at 5 s",
        ),
        ("m.csv", "video\tquery\tstart_time\tend_time\n", r"found 'video\\tquery\\tstart_time\\tend_time'; missing"),
    ],
)
def test_broken_lists_name_file_and_line(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_entries(folder / name)


def test_a_listed_video_that_is_not_there_stops_unless_skipping_is_asked_for(folder):
    data = config(folder, "m.csv", "video,query,start_time,end_time\na,x,0,1\nzz,x,0,1\n")
    with pytest.raises(DataError, match="1 listed videos missing: .*zz"):
        load_moments(data)
    lenient = DataConfig(name="moments", root=data.root, annotations=data.annotations, skip_unreadable=True)
    assert load_moments(lenient).missing == (("zz", "all", "no video"),)


def test_two_videos_of_one_name_are_ambiguous(folder):
    (folder / "sub" / "a.mp4").write_bytes((folder / "a.mp4").read_bytes())
    with pytest.raises(DataError, match="two videos named a"):
        load_moments(config(folder, "m.csv", "video,query,start_time,end_time\na,x,0,1\n"))


def test_ones_own_file_or_folder_with_sentences_needs_no_annotations(folder):
    one = load_recordings(DataConfig(video=str(folder / "a.mp4"), queries="a clip; a bag"))
    assert [video.id for video in one.videos] == ["a"]
    assert one.moments == {}
    every = load_recordings(DataConfig(video=str(folder), queries="a clip"))
    assert [video.id for video in every.videos] == ["a.mp4", "sub/b.mkv"]


@pytest.mark.parametrize("text", ["", " ", "a clip;", ";a clip", "a;;b"])
def test_an_empty_sentence_is_refused(text):
    with pytest.raises(ConfigError, match="empty query"):
        split_queries(text)


def test_a_recording_that_is_not_there_says_so(tmp_path):
    with pytest.raises(DataError, match="no such video"):
        load_recordings(DataConfig(video=str(tmp_path / "op.mp4"), queries="x"))
    with pytest.raises(DataError, match="no video found"):
        load_recordings(DataConfig(video=str(tmp_path), queries="x"))


def test_a_list_that_is_no_utf_8_names_the_way_out(folder):
    (folder / "m.jsonl").write_bytes('{"vid": "a", "query": "café"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"unreadable file: .*m.jsonl.*; try: iconv -f latin1"):
        read_entries(folder / "m.jsonl")


def test_only_a_line_feed_ends_a_line_of_json(folder):
    (folder / "m.jsonl").write_text('{"vid": "a", "query": "a\u2028clip"}\r\n', encoding="utf-8")
    assert [entry.query for entry in read_entries(folder / "m.jsonl")] == ["a clip"]


def test_one_video_has_one_length(folder):
    lines = [{"vid": "a", "query": "x", "duration": 80}, {"vid": "a", "query": "y"}]
    corpus = load_moments(config(folder, "m.jsonl", "\n".join(map(json.dumps, lines))))
    assert corpus.videos[0].label_seconds == 80
    lines.append({"vid": "a", "query": "z", "duration": 500})
    with pytest.raises(DataError, match="two lengths of one video: .*a lasts 80 s and 500 s"):
        load_moments(config(folder, "m.jsonl", "\n".join(map(json.dumps, lines))))


def test_one_video_under_two_names_is_not_scored_twice(folder):
    text = "video,query,start_time,end_time\na.mp4,x,0,1\na,x,0,1\n"
    with pytest.raises(DataError, match="one video under two names: .*a.mp4: listed as a.mp4 and as a;"):
        load_moments(config(folder, "m.csv", text))


def split_list(name, rows):
    """The same lines as csv or jsonl; rows of video, query and split, None = the column or key is not there."""
    if name.endswith("csv"):
        text = "video,query,start_time,end_time,split\n"
        return text + "".join(f"{video},{query},0,1,{split or ''}\n" for video, query, split in rows)
    lines = [
        {"vid": video, "query": query, "relevant_windows": [[0, 1]], **({} if split is None else {"split": split})}
        for video, query, split in rows
    ]
    return "\n".join(map(json.dumps, lines))


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
def test_the_splits_of_a_list_reach_its_videos_and_its_protocol(folder, name):
    rows = [("b", "x", "val"), ("a", "x", "train"), ("b", "y", "val")]
    corpus = load_moments(config(folder, name, split_list(name, rows)))
    assert [(video.id, video.split) for video in corpus.videos] == [("b", "val"), ("a", "train")]
    assert [video.id for video in corpus.of_split("train")] == ["a"]
    assert corpus.moments["b"] == {"x": ((0.0, 1.0),), "y": ((0.0, 1.0),)}
    assert corpus.protocol.startswith(f"{name}, train/val, split ")
    swapped = load_moments(config(folder, name, split_list(name, [("b", "x", "train"), ("a", "x", "val")])))
    assert swapped.protocol != corpus.protocol


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
@pytest.mark.parametrize("split", [None, "", "all"])
def test_a_list_without_splits_is_one(folder, name, split):
    corpus = load_moments(config(folder, name, split_list(name, [("a", "x", split), ("b", "x", split)])))
    assert {video.split for video in corpus.videos} == {"all"}
    assert corpus.protocol.startswith(f"{name}, all videos, split ")


def test_a_missing_video_is_missing_from_its_split(folder):
    data = config(folder, "m.csv", split_list("m.csv", [("a", "x", "train"), ("zz", "x", "test")]))
    lenient = DataConfig(name="moments", root=data.root, annotations=data.annotations, skip_unreadable=True)
    assert load_moments(lenient).missing == (("zz", "test", "no video"),)


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x", "train"), ("a", "y", "val")], "one video in two splits: {path}: a is train and val; try: "),
        ([("a", "x", "train"), ("b", "x", None)], "a split is missing: {path}: b has none, others have; try: "),
        ([("b", "x", "all"), ("a", "x", "test")], "a split is missing: {path}: b has none, others have"),
        ([("a", "x", "train"), ("a", "y", None)], "one video in two splits: {path}: a is train and all"),
        ([("a", "x", "train"), ("b", "x", "dev")], "unknown split: {path}, line {last}: found 'dev'; try: name train"),
    ],
    ids=["two splits", "one without", "one of all", "half of a video", "an unknown word"],
)
def test_splits_that_cannot_be_are_one_line_with_the_place(folder, name, rows, message):
    data = config(folder, name, split_list(name, rows))
    with pytest.raises(DataError) as caught:
        load_moments(data)
    assert message.format(path=folder / name, last=3 if name == "m.csv" else 2) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", [None, 3, ["train"]])
def test_a_split_that_is_no_word_is_refused(folder, split):
    (folder / "m.jsonl").write_text(json.dumps({"vid": "a", "query": "x", "split": split}))
    with pytest.raises(DataError, match=r"unknown split: .*line 1: found .*; try: name train, val or test"):
        read_entries(folder / "m.jsonl")


@pytest.mark.parametrize(("end", "is_refused"), [(2.1, False), (5000, True)])
def test_a_moment_beyond_the_videos_end_is_refused_once_its_length_is_known(folder, end, is_refused):
    corpus = load_moments(config(folder, "m.csv", f"video,query,start_time,end_time\na,x,0,{end}\n"))
    reading = Reading(fps=2.0, size=32, crop="center", batch=8, decoder="auto", threads=1, timeout_seconds=30.0)
    for _ in range(2):  # from the file, then from the store
        with Progress(1, name="videos", unit="videos", is_shown=False) as progress:
            ((_, found),) = feature_pass(
                corpus.videos,
                lambda batches, *_: {"features": np.zeros(sum(len(batch) for batch in batches))},
                store=FeatureStore(folder / "features"),
                key={},
                reading=reading,
                progress=progress,
            )
        assert isinstance(found, DataError) is is_refused
    if is_refused:
        assert "the video lasts 1.20 s, a moment of a ends at 5000.00 s" in str(found)
