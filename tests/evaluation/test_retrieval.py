"""Ranks and their metrics beside the released code's, a slow way to the same numbers, and cases worked by hand."""

import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xclip_module.errors import NonFiniteError
from xclip_module.evaluation import retrieval_files
from xclip_module.evaluation.retrieval import (
    ANY_CAPTION,
    BEST_CAPTION,
    PROTOCOLS,
    chance,
    metrics,
    ranks,
    recall_at,
    retrieval_metrics,
    top_videos,
)

GOLDEN = Path(os.environ.get("RETRIEVAL_GOLDEN", Path(__file__).parents[1] / "golden" / "retrieval"))
KEYS = [f"{direction}/{name}" for direction in ("t2v", "v2t") for name in ("R@1", "R@5", "R@10", "MdR", "MnR")]
ODD_CAPTIONS = {"multi_caption_15v_nan", "multi_caption_hand_even_median_2v", "multi_caption_20v_ties"}
CAPTIONS = sorted(path.stem for path in GOLDEN.glob("multi_caption_*.npz") if path.stem not in ODD_CAPTIONS)


def golden(name):
    """The similarity, and what was computed from it elsewhere."""
    archive = np.load(GOLDEN / f"{name}.npz")
    expected = json.loads((GOLDEN / f"{name}.json").read_text())
    owner = (
        np.repeat(np.arange(expected["n_videos"]), expected["captions_per_video"]) if "n_videos" in expected else None
    )
    return archive["sim" if "sim" in archive else "similarity"], owner, expected


def percent(found, direction):
    """Our metrics under the released code's names."""
    own = {f"R{k}": 100 * found[f"{direction}/R@{k}"] for k in (1, 5, 10)}
    return own | {"MedianR": found[f"{direction}/MdR"], "MeanR": found[f"{direction}/MnR"]}


def released(report):
    return pytest.approx({key: report[key] for key in ("R1", "R5", "R10", "MedianR", "MeanR")}, rel=1e-6)


def slow(similarity, owner, protocol):
    """Every list sorted as a whole, the own item behind its equals; (t2v, v2t, videos)."""
    t2v = []
    for row, own in zip(similarity, owner, strict=True):
        t2v.append(sorted(range(len(row)), key=lambda v, row=row, own=own: (-row[v], v == own)).index(own))
    videos, v2t = sorted(set(owner)), []
    for video in videos:
        column = [float(row[video]) for row in similarity]
        if protocol == BEST_CAPTION:
            best = {o: max(s for s, one in zip(column, owner, strict=True) if one == o) for o in videos}
            v2t.append(sorted(videos, key=lambda o, best=best, video=video: (-best[o], o == video)).index(video))
        else:
            order = sorted(
                range(len(column)), key=lambda c, column=column, video=video: (-column[c], owner[c] == video)
            )
            v2t.append([owner[caption] == video for caption in order].index(True))
    return t2v, v2t, videos


matrices = st.tuples(st.integers(1, 8), st.integers(1, 6)).flatmap(
    lambda shape: st.tuples(
        st.lists(
            st.lists(st.integers(-2, 3), min_size=shape[1], max_size=shape[1]), min_size=shape[0], max_size=shape[0]
        ),
        st.lists(st.integers(0, shape[1] - 1), min_size=shape[0], max_size=shape[0]),
    )
)


# Beside the released code -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ("square_50", "square_200") if (GOLDEN / f"{name}.npz").exists()])
def test_without_ties_every_rank_and_metric_is_the_released_one(name):
    similarity, _, expected = golden(name)
    found = ranks(similarity)
    for direction, own in (("t2v", found.t2v), ("v2t", found.v2t)):
        report = expected["clip4clip_compute_metrics"][direction]
        assert own.tolist() == report["cols"]
        assert percent(metrics(found), direction) == released(report)


def test_without_ties_mmaction2_agrees():
    similarity, _, expected = golden("mm_features_50")
    found = retrieval_metrics(similarity)
    report = {key.removeprefix("retrieval/"): value for key, value in expected["mmaction2_RetrievalMetric"].items()}
    assert [100 * found[f"t2v/R@{k}"] for k in (1, 5, 10)] == pytest.approx([report[f"R{k}"] for k in (1, 5, 10)])
    assert [found["t2v/MdR"], found["t2v/MnR"]] == pytest.approx([report["MdR"], report["MnR"]])


def test_a_matrix_may_have_more_videos_than_texts():
    """The released code knows no index: text i belongs to video i, and only a longer row is allowed."""
    similarity, _, expected = golden("rect_60x40_more_queries")
    found = ranks(similarity.T, np.arange(40))
    assert found.t2v.tolist() == expected["clip4clip_compute_metrics"]["v2t"]["cols"]
    assert len(found.v2t) == 40


@pytest.mark.parametrize("name", CAPTIONS)
def test_several_captions_both_ways_and_both_protocols(name):
    similarity, owner, expected = golden(name)
    found = ranks(similarity, owner)
    values = metrics(found)
    assert percent(values, "t2v") == released(expected["clip4clip_tensor_text_to_video_metrics"])
    assert found.v2t.tolist() == expected["clip4clip_v2t_compute_metrics_on_numpy"]["cols"]
    assert percent(values, "v2t") == released(expected["clip4clip_v2t_compute_metrics_on_numpy"])
    other = ranks(similarity, owner, protocol=ANY_CAPTION)
    assert other.v2t.tolist() == expected["neutral_v2t_any_caption_rank_over_all_captions"]["ranks"]
    assert other.t2v.tolist() == found.t2v.tolist()


@pytest.mark.parametrize(
    ("name", "t2v", "v2t"),
    [
        # Released: R@1 10.0, MnR 5.5 of 100 ranks for 10 queries, both ways.
        ("ties_all_equal_10", (0, 0, 100, 10, 10), (0, 0, 100, 10, 10)),
        # Released: 22.7, 50.0, 81.8, 5.5, 6.0 of 22 ranks for 20 queries; 20, 55, 80, 3, 5.25.
        ("ties_signed_zero_20", (25, 55, 85, 4, 5.4), (20, 55, 80, 3, 5.25)),
        # Released: 10.7, 46.4, 64.3, 6.5, 10.2 of 56 ranks for 50 queries; 11.5, 46.2, 71.2, 6, 9.6 of 52.
        ("ties_duplicate_video_and_text_50", (12, 52, 68, 5, 9.46), (12, 48, 70, 6, 9.74)),
        # Released: the same t2v; v2t 25, 100, 100, 2.5, 2.5 of 16 ranks for 4 queries.
        ("square_even_median_4", (25, 100, 100, 2.5, 2.5), (0, 100, 100, 4, 4)),
    ],
)
def test_a_tie_counts_against_us_and_every_query_once(name, t2v, v2t):
    similarity, _, expected = golden(name)
    found = ranks(similarity)
    assert list(percent(metrics(found), "t2v").values()) == pytest.approx(t2v)
    assert list(percent(metrics(found), "v2t").values()) == pytest.approx(v2t)
    for direction, own in (("t2v", found.t2v), ("v2t", found.v2t)):
        assert own.tolist() == expected["tie_rules"][direction]["pessimistic"]["ranks"]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("a", [2, 1]),  # no tie, released the same
        ("b", [2, 1]),  # released 2, 0, 1: R@1 33 %
        ("c", [2, 2]),  # released 2, 0, 1, 2: R@1 25 %
        ("d", [2, 2]),  # released 0, 1, 2, 0, 1, 2: R@1 33 %
    ],
)
def test_the_matrices_of_clip4clips_issue_80(case, expected):
    similarity, _, _ = golden(f"ties_issue80_2x3_{case}")
    assert ranks(similarity, [0, 1]).t2v.tolist() == expected


def test_infinite_scores_are_ordered_and_drop_no_query():
    """The released code loses the three queries whose own score is infinite, and has the same 27 others."""
    similarity, _, expected = golden("inf_30")
    found = ranks(similarity)
    lost = np.flatnonzero(np.isinf(np.diag(similarity)))
    assert lost.tolist() == [2, 8, 12]
    assert found.t2v[lost].tolist() == [29, 0, 29]  # -inf alone, +inf alone, and behind 29 other -inf of its row
    for direction, own in (("t2v", found.t2v), ("v2t", found.v2t)):
        assert np.delete(own, lost).tolist() == expected["clip4clip_compute_metrics"][direction]["cols"]
    assert ranks(np.full((3, 3), -np.inf)).t2v.tolist() == [2, 2, 2]


def test_an_even_number_of_captions_has_the_mean_of_the_middle_ranks_as_median():
    """Released: torch.median, the lower one, 1.0. Its v2t has ties: ranks 0, 1, 0, 1 for two queries."""
    similarity, owner, expected = golden("multi_caption_hand_even_median_2v")
    assert expected["clip4clip_tensor_text_to_video_metrics"]["MedianR"] == 1.0
    assert retrieval_metrics(similarity, owner)["t2v/MdR"] == expected["neutral_t2v_pessimistic_rank"]["MdR"] == 1.5
    assert ranks(similarity, owner).v2t.tolist() == [1, 1]
    assert ranks(similarity, owner, protocol=ANY_CAPTION).v2t.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("nan_30", r"32 of 900 scores, in 3 rows \(2, 5, 11; wholly 11\) and 30 columns \(0, 1, 2, 3, 4, …\)"),
        ("multi_caption_15v_nan", r"3 of 645 scores, in 3 rows \(0, 4, 9\) and 3 columns \(0, 2, 11\)"),
    ],
)
def test_nan_is_an_error_that_says_where(name, places):
    """Released: the queries with NaN vanish, and what is left is averaged."""
    similarity, owner, _ = golden(name)
    for judge in (lambda: ranks(similarity, owner), lambda: top_videos(similarity, 3)):
        with pytest.raises(NonFiniteError, match=places):
            judge()


# Beside a slow way ----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(matrices, st.sampled_from(PROTOCOLS), st.sampled_from(["f2", "f4", "f8", "g", "i1", "i8"]))
def test_ranks_are_places_in_sorted_lists(case, protocol, kind):
    rows, owner = case
    t2v, v2t, videos = slow(rows, owner, protocol)
    found = ranks(np.array(rows, kind), np.array(owner, "u2"), protocol=protocol)
    assert (found.t2v.tolist(), found.v2t.tolist(), found.videos.tolist()) == (t2v, v2t, videos)


@settings(max_examples=60, deadline=None)
@given(matrices, st.integers(1, 7), st.sampled_from(["f2", "f4", "i8", "u1"]))
def test_the_best_videos_are_those_of_a_sorted_row_lower_column_first(case, k, kind):
    rows = (np.array(case[0]) + (2 if kind == "u1" else 0)).astype(kind)
    found = top_videos(rows, k)
    expected = [sorted(range(len(row)), key=lambda v, row=row: (-row[v], v))[:k] for row in rows.astype(int).tolist()]
    assert found.videos.tolist() == expected
    assert found.scores.tolist() == [[row[v] for v in own] for row, own in zip(rows.tolist(), expected, strict=True)]


def test_the_size_of_a_block_changes_nothing(monkeypatch):
    rng = np.random.default_rng(3)
    similarity, owner = rng.integers(0, 9, (37, 11)), rng.integers(0, 11, 37)
    whole = [ranks(similarity, owner, protocol=protocol) for protocol in PROTOCOLS], top_videos(similarity, 4)
    monkeypatch.setattr(retrieval_files, "_BLOCK", 50)
    parts = [ranks(similarity, owner, protocol=protocol) for protocol in PROTOCOLS], top_videos(similarity, 4)
    for one, other in zip([*whole[0], whole[1]], [*parts[0], parts[1]], strict=True):
        for first, second in zip(one, other, strict=True):
            np.testing.assert_array_equal(first, second)


def test_memory_beside_the_matrix_is_bounded(monkeypatch):
    """A sorted copy of this one would be 8 MB of indices."""
    monkeypatch.setattr(retrieval_files, "_BLOCK", 1 << 15)
    similarity = np.random.default_rng(0).standard_normal((1000, 1000), np.float32)
    tracemalloc.start()
    for protocol in PROTOCOLS:
        ranks(similarity, protocol=protocol)
    top_videos(similarity, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5e6


def test_texts_in_any_order_have_the_same_ranks():
    rng = np.random.default_rng(5)
    similarity, owner, order = rng.random((20, 6)), rng.integers(0, 6, 20), rng.permutation(20)
    for protocol in PROTOCOLS:
        one = ranks(similarity, owner, protocol=protocol)
        other = ranks(similarity[order], owner[order], protocol=protocol)
        assert (one.t2v[order] == other.t2v).all()
        assert (one.v2t == other.v2t).all()


def test_integers_beyond_doubles_are_compared_as_integers():
    big = 2**53
    assert ranks(np.array([[big, big + 1], [0, 1]])).t2v.tolist() == [1, 0]


# By hand ----------------------------------------------------------------------------------------------------------


def test_a_video_without_a_text_is_only_a_candidate():
    similarity = np.array([[0.5, 0.9, 0.1], [0.6, 0.9, 0.2]])
    for protocol in PROTOCOLS:
        found = ranks(similarity, [0, 2], protocol=protocol)
        assert found.t2v.tolist() == [1, 2]  # video 1 stands before both
        assert found.videos.tolist() == [0, 2]
        assert found.v2t.tolist() == [1, 0]


def test_the_two_protocols_differ_where_one_video_has_good_captions():
    """Two captions of video 0 stand before the own one of video 1: place 1 among videos, 2 among captions."""
    similarity = np.array([[5.0, 4.0], [5.0, 3.0], [1.0, 2.0]])
    assert ranks(similarity, [0, 0, 1]).v2t.tolist() == [0, 1]
    assert ranks(similarity, [0, 0, 1], protocol=ANY_CAPTION).v2t.tolist() == [0, 2]


def test_own_captions_that_tie_with_each_other_do_not_count():
    assert ranks(np.array([[2, 0], [2, 0], [1, 3]]), [0, 0, 1], protocol=ANY_CAPTION).v2t.tolist() == [0, 0]


def test_metrics_have_exactly_these_keys_and_any_k():
    assert list(retrieval_metrics(np.eye(3))) == KEYS
    found = retrieval_metrics(np.array([[0, 1], [0, 1]]), ks=(1, 2, 50))
    assert found["t2v/R@1"] == 0.5
    assert found["t2v/R@50"] == 1.0
    assert (found["t2v/MdR"], found["t2v/MnR"]) == (1.5, 1.5)
    for broken in ((0,), (5, -1)):
        with pytest.raises(ValueError, match="expected 1 or more"):
            retrieval_metrics(np.eye(3), ks=broken)
    with pytest.raises(ValueError, match="expected 1 or more"):
        top_videos(np.eye(3), 0)


@pytest.mark.parametrize("judge", [lambda **kw: ranks(np.eye(2), **kw), lambda **kw: chance([0, 1], 2, **kw)])
def test_a_protocol_that_nobody_knows_names_the_two(judge):
    with pytest.raises(ValueError, match="'best', expected best-caption or any-caption"):
        judge(protocol="best")


# Chance ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("owner", [[0, 1, 2, 3], [0, 0, 0, 1, 2], [0, 2, 2, 2, 2], [1, 1, 1]])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_chance_is_the_mean_over_all_orders(owner, protocol):
    """Every order of the scores of a row or column is as likely; a video 4 has no text."""
    videos, texts = 5, len(owner)
    of_row = np.array(list(itertools.permutations(range(videos))))  # [120, V]
    orders = list(itertools.permutations(range(texts)))
    places = {own: [] for own in owner}
    for order in orders:
        column = np.repeat(np.array(order)[:, None], videos, axis=1)
        found = ranks(column, owner, protocol=protocol)
        for video, place in zip(found.videos.tolist(), found.v2t.tolist(), strict=True):
            places[video].append(place)
    every = {"t2v": (of_row > of_row[:, :1]).sum(axis=1), "v2t": np.concatenate(list(places.values()))}
    found = chance(owner, videos, ks=(1, 2, 4, 9), protocol=protocol)
    for direction, ranked in every.items():
        expected = dict(zip((1, 2, 4, 9), recall_at(ranked, (1, 2, 4, 9)), strict=True))
        assert {k: found[f"{direction}/R@{k}"] for k in expected} == pytest.approx(expected)
        assert found[f"{direction}/MdR"] == np.median(ranked) + 1
        assert found[f"{direction}/MnR"] == pytest.approx(ranked.mean() + 1)


def test_chance_of_a_thousand_pairs_is_the_known_one():
    found = chance(np.arange(1000), 1000)
    assert list(found) == KEYS
    assert list(found.values()) == [0.001, 0.005, 0.01, 500.5, 500.5] * 2


def test_reading_the_metrics_loads_neither_torch_nor_scikit_learn():
    """A command that judges two files starts in a moment."""
    heavy = "sorted({'torch', 'sklearn', 'matplotlib', 'pandas'} & set(sys.modules))"
    code = f"import xclip_module.evaluation.retrieval, sys; print({heavy})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
