"""The papers' numbers are as printed, and marked as theirs."""

import pytest

from xclip_module.reporting.retrieval.published import MARK, published

BENCHMARKS = ("msrvtt-9k", "msvd", "lsmdc", "didemo", "activitynet")


def test_the_published_numbers_are_those_of_the_abstract():
    """X-CLIP's abstract: 49.3, 50.4, 26.1, 47.8 and 46.2 t2v R@1."""
    best = [max(row.values["t2v/R@1"] for row in published(name)) for name in BENCHMARKS]
    assert best == [0.493, 0.504, 0.261, 0.478, 0.462]
    xclip = next(row for row in published("msrvtt-9k") if (row.method, row.backbone) == ("X-CLIP", "ViT-B/32"))
    t2v, v2t = (0.461, 0.73, 0.831, 2.0, 13.2), (0.468, 0.733, 0.84, 2.0, 9.1)
    assert tuple(xclip.values.values()) == (*t2v, *v2t)
    assert list(xclip.values)[:5] == ["t2v/R@1", "t2v/R@5", "t2v/R@10", "t2v/MdR", "t2v/MnR"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_published_row_says_whose_it_is_and_grows_with_k(name):
    found = published(name)
    assert len({(row.method, row.backbone) for row in found}) == len(found) >= 6
    for row in found:
        assert row.benchmark == name
        assert row.split
        assert "2022" in row.source or "mmaction2" in row.source
        assert row.method == "X-CLIP" or row.method.startswith("CLIP4Clip ")
        for direction in ("t2v", "v2t"):
            recall = [value for key, value in row.values.items() if key.startswith(f"{direction}/R@")]
            assert recall == sorted(recall)
            assert all(0 < value < 1 for value in recall)
            assert row.values.get(f"{direction}/MnR", 2) > 1


def test_mmaction2_reports_one_direction_only():
    row = published("msrvtt-9k")[-1]
    assert row.method == "CLIP4Clip meanP, MMAction2"
    assert list(row.values.values()) == [0.431, 0.694, 0.789, 2.0, 16.8]


def test_other_data_sets_have_no_published_numbers_and_the_mark_is_plain():
    assert published("cholec80") == published("msrvtt-7k") == ()
    assert published("msvd-mmaction2") == published("msvd")
    assert MARK == "published, not ours"
