import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.small_training import SECONDS, corpus, small_set

from xclip_module.config import DataConfig
from xclip_module.datasets.catalogue import load_corpus
from xclip_module.errors import DataError
from xclip_module.interface import Query, Video
from xclip_module.training.batches.training_set import training_set

SET = small_set()


def names(training, held):
    return {query.name for query, is_held in zip(training.classes, held, strict=True) if is_held}


def items_of(training, video):
    place = [one.id for one in training.videos].index(video)
    return training.item_time[training.item_video == place].tolist()


def test_items_are_the_labelled_training_clips_in_which_something_holds():
    """A stride of 1 s in 30 s; of video c two seconds are bare, the last has a tool. At 30 s the video is over."""
    assert [video.id for video in SET.videos] == ["a", "b", "c"]
    assert items_of(SET, "a") == (np.arange(30) + 0.5).tolist()
    rest = [second + 0.5 for second in range(30) if second not in (12, 13)]
    assert items_of(SET, "c") == rest
    assert items_of(small_set(use_tools=False), "c") == rest[:-1]
    assert items_of(small_set(clip_stride_seconds=4.0), "a") == [2, 6, 10, 14, 18, 22, 26]


def test_what_holds_and_what_is_known_by_hand():
    assert names(SET, SET.holds("b", 3.0)) == {"P0", "T0"}
    assert names(SET, SET.holds("b", 9.0)) == {"P1"}
    assert names(SET, SET.holds("a", 3.0)) == {"P0"}
    assert names(SET, SET.tracks["a"].known) == {"P0", "P1", "P2"}
    assert SET.tracks["b"].known.all()
    assert [SET.phase("a", time) for time in (5.99, 6.0, 17.5, 29.9, 30.0)] == [0, 1, 2, 0, None]
    assert SET.phase_segments("b") == [(0.0, 6.0, 0), (6.0, 17.5, 1), (17.5, 20.0, 2), (20.0, 30.0, 0)]


@given(video=st.sampled_from("abc"), time=st.floats(0, SECONDS))
def test_holding_is_lying_in_a_segment(video, time):
    moments = corpus().moments[video]
    expected = {name for name, found in moments.items() if any(start <= time < end for start, end in found)}
    assert names(SET, SET.holds(video, time)) == expected


def test_tools_may_be_left_out():
    training = small_set(use_tools=False)
    assert [query.name for query in training.classes] == ["P0", "P1", "P2"]
    assert len(training.sentences) == 6


def test_every_distinct_sentence_stands_once_with_its_class():
    queries = corpus().queries
    texts = {q.name: (q.text, "again " + q.name, q.text) for q in queries}
    training = training_set(corpus(), texts=texts, use_tools=True, clip_stride_seconds=1.0)
    assert training.sentences == tuple(text for q in queries for text in (q.text, "again " + q.name))
    assert training.class_of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_one_sentence_for_two_classes_is_refused():
    texts = {q.name: (q.text, "something") for q in corpus().queries}
    with pytest.raises(DataError, match=r"one sentence for two classes.*“something” stands for P0 and for P1"):
        training_set(corpus(), texts=texts, use_tools=True, clip_stride_seconds=1.0)


def test_no_train_split_is_one_line_that_says_the_way_out():
    videos = (Video("x", None, "all", SECONDS),)
    with pytest.raises(DataError, match=r"found splits: all; lists of moments .* no train split; try: --data.name"):
        training_set(corpus(videos=videos), texts={}, use_tools=True, clip_stride_seconds=1.0)


def test_sentences_that_nobody_annotated_are_nothing_to_train_on():
    free = corpus(queries=(Query("a stone", "a stone", "free"),))
    with pytest.raises(DataError, match="nothing to train on: small: no moment of its 1 sentences is annotated"):
        training_set(free, texts={"a stone": ("a stone",)}, use_tools=True, clip_stride_seconds=1.0)


def test_without_some_videos_the_others_keep_their_clips():
    left = SET.without({"a", "unheard of"})
    assert [video.id for video in left.videos] == ["b", "c"]
    assert {video: items_of(left, video) for video in "bc"} == {video: items_of(SET, video) for video in "bc"}
    assert set(left.tracks) == {"b", "c"}
    with pytest.raises(DataError, match="no training video is left"):
        SET.without("abc")


def test_the_demo_trains_on_its_six_first_videos():
    demo = load_corpus(DataConfig())
    texts = {q.name: (q.text,) for q in demo.queries}
    training = training_set(demo, texts=texts, use_tools=True, clip_stride_seconds=1.0)
    assert [video.id for video in training.videos] == [f"video{n:02d}" for n in range(1, 7)]
    assert all(training.phase(v.id, t) is not None for v in training.videos for t in items_of(training, v.id))
