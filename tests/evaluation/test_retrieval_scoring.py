"""Texts against videos at scale: in blocks and in two stages; over processes: see test_retrieval_processes.py."""

import re

import numpy as np
import pytest
import torch
from support.models_factory import tiny_ms_xclip, tiny_two_tower

from xclip_module.errors import ConfigError, NonFiniteError
from xclip_module.evaluation import retrieval_scoring
from xclip_module.evaluation.retrieval import ranks
from xclip_module.evaluation.retrieval_scoring import (
    Facts,
    check_two_stage,
    cosine,
    facts_line,
    score_matrix,
    two_stage,
)
from xclip_module.interface import Embeddings, Picture
from xclip_module.models.ms_xclip import MicrosoftXClip
from xclip_module.models.similarity import MultiGrained
from xclip_module.run.distributed import World

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")
ALONE = World(0, 1, CPU)
WIDTH, WORDS, FRAMES = 64, 10, 5


def build(family):
    if family == "ms-xclip":
        return MicrosoftXClip(tiny_ms_xclip(), Picture(32, (0.5,) * 3, (0.5,) * 3))
    header = {"xclip": "mean", "clip4clip": "mean", "tight": "tight"}[family]
    name = "xclip" if family == "xclip" else "clip4clip"
    return tiny_two_tower(family=name, header=header, header_layers=int(header == "tight"))


def multi_grained():
    """The `xclip` head alone, which needs no towers."""
    torch.manual_seed(0)
    head = MultiGrained(WIDTH, words=WORDS, frames=FRAMES)
    with torch.no_grad():
        for matrix in head.parameters():
            matrix += 0.05 * torch.randn_like(matrix)
    return lambda text, video: head(text, video, torch.tensor(10.0))


def sides(texts, videos, *, seed=0):
    """Text n and video n mod C share a direction, under noise, so that coarse and exact scores agree in part."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(videos, WIDTH, generator=generator)

    def side(directions, slots):
        tokens = directions[:, None] + 2 * torch.randn(len(directions), slots, WIDTH, generator=generator)
        mask = torch.arange(slots)[None] < torch.randint(1, slots + 1, (len(directions), 1), generator=generator)
        return Embeddings(directions + torch.randn(len(directions), WIDTH, generator=generator), tokens, mask)

    return side(shared[torch.arange(texts) % videos], WORDS), side(shared, FRAMES)


def whole(text, video, similarity):
    with torch.no_grad():
        return similarity(text, video).numpy()


def slow_candidates(coarse, keep):
    """Pair by pair: how many stand before it in its row, and in its column."""
    chosen = np.zeros(coarse.shape, bool)
    for q, c in np.ndindex(coarse.shape):
        chosen[q, c] = min((coarse[q] > coarse[q, c]).sum(), (coarse[:, c] > coarse[q, c]).sum()) < keep
    return chosen


def set_blocks(monkeypatch, texts, videos):
    monkeypatch.setattr(retrieval_scoring, "TEXTS_PER_BLOCK", texts)
    monkeypatch.setattr(retrieval_scoring, "VIDEOS_PER_BLOCK", videos)


@pytest.mark.parametrize("family", ["xclip", "clip4clip", "tight", "ms-xclip"])
@pytest.mark.parametrize("blocks", [(1, 100), (3, 4), (13, 1), (100, 100)])
def test_any_blocks_give_the_scores_of_one_call(family, blocks, monkeypatch):
    similarity, (text, video) = build(family).similarity, sides(13, 11)
    set_blocks(monkeypatch, *blocks)
    found, expected = score_matrix(text, video, similarity, world=ALONE), whole(text, video, similarity)
    assert found.dtype == np.float32
    # Two layers of attention stand between the embeddings and a score of ms-xclip, and round more.
    tolerance = (5e-6 if family == "ms-xclip" else 1e-6) * max(1, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_no_call_gets_more_than_a_block_of_either_side(monkeypatch):
    text, video = sides(13, 11)
    seen = []

    def similarity(texts, videos):
        assert not torch.is_grad_enabled()
        seen.append((len(texts.tokens), len(videos.tokens)))
        return cosine(texts, videos)

    set_blocks(monkeypatch, 5, 4)
    score_matrix(text, video, similarity, world=ALONE)
    assert seen == [(texts, videos) for texts in (5, 5, 3) for videos in (4, 4, 3)]


@pytest.mark.parametrize("keep", [11, 13, 100])
def test_two_stages_that_keep_all_are_one(keep):
    similarity, (text, video) = multi_grained(), sides(13, 11)
    found = two_stage(text, video, similarity, keep=keep, world=ALONE)
    np.testing.assert_allclose(found.matrix, whole(text, video, similarity), rtol=0, atol=1e-5)
    assert found.facts.exact_share == 1
    assert found.facts.t2v == (13, 1, 1)
    assert found.facts.v2t == (11, 1, 1)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("keep", [1, 3])
def test_candidates_have_exact_scores_and_all_others_stand_below_in_coarse_order(keep, seed):
    similarity, (text, video) = multi_grained(), sides(23, 17, seed=seed)
    exact, coarse = (whole(text, video, score) for score in (similarity, cosine))
    chosen = slow_candidates(coarse, keep)
    found = two_stage(text, video, similarity, keep=keep, world=ALONE, seed=seed)
    np.testing.assert_allclose(found.matrix[chosen], exact[chosen], rtol=0, atol=1e-5)
    assert found.matrix[~chosen].max() < found.matrix[chosen].min()
    assert np.array_equal(np.argsort(found.matrix[~chosen]), np.argsort(coarse[~chosen]))
    assert min(chosen.sum(0).min(), chosen.sum(1).min()) >= keep
    assert found.facts.exact_share == chosen.mean()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 3e4])
@pytest.mark.parametrize("offset", [-1.0, 0.0, 1.0])
def test_the_order_of_cosines_survives_scores_of_any_size(scale, offset):
    text, video = sides(23, 17)
    found = two_stage(text, video, lambda t, v: scale * (cosine(t, v) + offset), keep=2, world=ALONE)
    coarse = whole(text, video, cosine)
    chosen = slow_candidates(coarse, 2)
    assert found.matrix[~chosen].max() < found.matrix[chosen].min()
    assert np.array_equal(np.argsort(found.matrix[~chosen]), np.argsort(coarse[~chosen]))


def test_an_own_item_ranks_as_among_the_candidates_or_after_them():
    """In both directions, also in columns that mix both kinds of scores."""
    similarity, (text, video) = multi_grained(), sides(40, 40)
    exact = whole(text, video, similarity)
    chosen = slow_candidates(whole(text, video, cosine), 2)
    found = ranks(two_stage(text, video, similarity, keep=2, world=ALONE).matrix)
    kinds = set()
    for places, scores, marks in ((found.t2v, exact, chosen), (found.v2t, exact.T, chosen.T)):
        for n, place in enumerate(places):
            kinds.add(bool(marks[n, n]))
            if marks[n, n]:
                assert place == (scores[n, marks[n]] > scores[n, n]).sum()
            else:
                assert place >= marks[n].sum()
    assert kinds == {True, False}


@pytest.mark.parametrize("sample", [5, 1000])
def test_recall_is_the_share_of_the_exact_best_among_the_candidates(sample):
    similarity, (text, video) = multi_grained(), sides(23, 17)
    exact = whole(text, video, similarity)
    chosen = slow_candidates(whole(text, video, cosine), 3)
    facts = two_stage(text, video, similarity, keep=3, world=ALONE, sample=sample, seed=4).facts
    for found, scores, marks in ((facts.t2v, exact, chosen), (facts.v2t, exact.T, chosen.T)):
        drawn = np.random.default_rng(4).choice(len(scores), min(sample, len(scores)), replace=False)
        hits = [[marks[n, c] for c in sorted(range(scores.shape[1]), key=lambda c: -scores[n, c])[:10]] for n in drawn]
        assert found.queries == len(drawn)
        assert found.at_1 == pytest.approx(np.mean([hit[0] for hit in hits]))
        assert found.at_10 == pytest.approx(np.mean(hits))
        assert 0 < found.at_10 < 1


def test_without_a_sample_nothing_but_the_candidates_is_scored():
    text, video = sides(23, 17)
    scored = []

    def similarity(texts, videos):
        scored.append(len(texts.pooled) * len(videos.pooled))
        return cosine(texts, videos)

    facts = two_stage(text, video, similarity, keep=2, world=ALONE, sample=0).facts
    assert sum(scored) == round(facts.exact_share * 23 * 17)
    assert facts.t2v is facts.v2t is None
    assert facts_line(facts).endswith("% of pairs scored exactly")


def test_a_text_that_every_video_chooses_is_scored_in_parts(monkeypatch):
    text, video = sides(6, 17)
    # The mean of all videos is near to each of them, and the other texts are far from all.
    text.pooled[0] = video.pooled.mean(0)
    text.pooled[1:] = -text.pooled[0] + 0.01 * text.pooled[1:]
    expected = two_stage(text, video, multi_grained(), keep=1, world=ALONE)
    sizes = []

    def similarity(texts, videos):
        sizes.append(len(videos.pooled))
        return multi_grained()(texts, videos)

    monkeypatch.setattr(retrieval_scoring, "VIDEOS_PER_BLOCK", 5)
    monkeypatch.setattr(retrieval_scoring, "_RESIDENT", 0)
    found = two_stage(text, video, similarity, keep=1, world=ALONE, sample=0)
    np.testing.assert_allclose(found.matrix, expected.matrix, rtol=0, atol=1e-5)
    assert sizes[:4] == [5, 5, 5, 2]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_number_are_named(value, monkeypatch):
    text, video = sides(6, 5)

    def similarity(texts, videos):
        scores = cosine(texts, videos)
        scores[(texts.pooled == text.pooled[2]).all(1)] = value
        return scores

    line = "10 of 30 scores, in 2 rows (2, 4; wholly 2, 4) and 5 columns (0, 1, 2, 3, 4)"
    text.pooled[4] = text.pooled[2]
    with monkeypatch.context() as patched:
        set_blocks(patched, 4, 2)
        with pytest.raises(NonFiniteError, match=re.escape(line)):
            score_matrix(text, video, similarity, world=ALONE)
    with pytest.raises(NonFiniteError, match=r"in 2 rows \(2, 4\) and"):
        two_stage(text, video, similarity, keep=1, world=ALONE)


def test_a_video_without_an_embedding_is_named_before_it_could_choose():
    text, video = sides(6, 5)
    video.pooled[3] = 0
    with pytest.raises(NonFiniteError, match=r"and 1 column \(3; wholly 3\)"):
        two_stage(text, video, multi_grained(), keep=1, world=ALONE)


def test_a_head_whose_pooled_features_nobody_compares_is_refused():
    for family in ("xclip", "clip4clip", "ms-xclip"):
        check_two_stage(build(family))
    with pytest.raises(ConfigError, match="tight header.*try: scoring all pairs exactly"):
        check_two_stage(build("tight"))


def test_what_cannot_be_compared_is_refused():
    text, video = sides(6, 5)
    with pytest.raises(ValueError, match="keep=0"):
        two_stage(text, video, cosine, keep=0, world=ALONE)
    with pytest.raises(ValueError, match=r"shapes \(6, 64\) and \(5, 32\)"):
        score_matrix(text, video._replace(pooled=video.pooled[:, :32]), cosine, world=ALONE)


def test_the_line_says_what_was_left_out():
    line = facts_line(Facts(100, 0.0171, None, retrieval_scoring.CandidateRecall(50, 0.98, 0.5)))
    assert line.startswith("best 100 of each side by cosine: 1.7% of pairs scored exactly, holding")
    assert line.endswith("the best 1 / 10 of 50 videos: 98.0% / 50.0%")
