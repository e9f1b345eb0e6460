import pytest
import torch
from support.models_factory import clips, texts, tiny_two_tower

from xclip_module.interface import Embeddings
from xclip_module.models import similarity
from xclip_module.models.similarity import MultiGrained, attend, normalise


def head(words=8, frames=5, width=16, *, masked=False, spread=0.3):
    torch.manual_seed(0)
    built = MultiGrained(width, words=words, frames=frames, masked=masked)
    with torch.no_grad():
        for matrix in built.parameters():
            matrix += spread * torch.randn_like(matrix)
    return built


def embeddings(count, slots, width=16, *, seed=0, common=0.0):
    """Random features; `common` draws them towards one direction, as CLIP's are."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, slots, width, generator=generator) + common
    mask = torch.arange(slots)[None] < torch.randint(1, slots + 1, (count, 1), generator=generator)
    return Embeddings(torch.randn(count, width, generator=generator) + common, tokens, mask)


def released_expressions(head, text, video):
    """The four granularities by the paper's equations 6-13 in float64, pair by pair and slot by slot."""
    m = {name: matrix.double() for name, matrix in head.named_parameters()}
    rows = []
    for b in range(len(text.pooled)):
        for v in range(len(video.pooled)):
            s, g = (normalise(x.pooled[i].double()) for x, i in ((text, b), (video, v)))
            words, frames = normalise(text.tokens[b].double()), normalise(video.tokens[v].double())
            if head.masked:
                words, frames = words[text.mask[b]], frames[video.mask[v]]
            m_words = [
                m[n][: len(words), : len(words)] for n in ("word_logit_weight", "word_mat_weight", "word_mat_weight2")
            ]
            m_frames = [
                m[n][: len(frames), : len(frames)]
                for n in ("frame_logit_weight", "frame_mat_weight", "frame_mat_weight2")
            ]

            def along(scores, matrix):
                return ((torch.softmax(scores / 0.01, 0) @ matrix) * scores).sum()

            pairs = words @ m["local_mat_weight"] @ frames.T
            by_frame = torch.stack([along(pairs[:, f], m_words[1]) for f in range(len(frames))])
            by_word = torch.stack([along(pairs[w], m_frames[1]) for w in range(len(words))])
            fine = (along(by_frame, m_frames[2]) + along(by_word, m_words[2])) / 2
            coarse = s @ m["global_mat_weight"] @ g
            rows.append((coarse + along(words @ g, m_words[0]) + along(frames @ s, m_frames[0]) + fine) / 4)
    return torch.stack(rows).view(len(text.pooled), -1)


@pytest.mark.parametrize("masked", [False, True])
def test_equals_the_equations_written_out(masked):
    built, text, video = head(masked=masked), embeddings(4, 8), embeddings(3, 5, seed=1)
    expected = released_expressions(built, text, video)
    ours = built(text, video, torch.tensor(1.0))
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=1e-5)


def test_masked_differs_from_official_only_where_slots_are_empty():
    full = [x._replace(mask=torch.ones_like(x.mask)) for x in (embeddings(4, 8), embeddings(3, 5, seed=1))]
    scale = torch.tensor(1.0)
    torch.testing.assert_close(head(masked=True)(*full, scale), head()(*full, scale), rtol=0, atol=1e-6)
    ragged = embeddings(4, 8), embeddings(3, 5, seed=1)
    assert (head(masked=True)(*ragged, scale) - head()(*ragged, scale)).abs().max() > 1e-3


def test_masked_does_not_feel_what_fills_the_empty_slots():
    built, text, video = head(masked=True), embeddings(4, 8), embeddings(3, 5, seed=1)
    before = built(text, video, torch.tensor(1.0))
    tokens = torch.where(text.mask[..., None], text.tokens, torch.randn_like(text.tokens))
    torch.testing.assert_close(built(text._replace(tokens=tokens), video, torch.tensor(1.0)), before)


@pytest.mark.parametrize("block", [1, 40, 200, 10**9])
def test_any_block_size_gives_the_same_scores(monkeypatch, block):
    built, text, video = head(), embeddings(13, 8), embeddings(11, 5, seed=1)
    expected = built(text, video, torch.tensor(1.0))
    monkeypatch.setattr(similarity, "_CPU_BLOCK", block)
    torch.testing.assert_close(built(text, video, torch.tensor(1.0)), expected, rtol=0, atol=1e-6)


def test_similarities_too_far_apart_for_one_exponential_are_scored_all_the_same():
    """A large local matrix spreads the products over more than exp(x / 0.01) has room for in float32."""
    built, text, video = head(), embeddings(4, 8), embeddings(3, 5, seed=1)
    with torch.no_grad():
        built.local_mat_weight *= 20
    weights = torch.exp(torch.tensor([2.0, 0.0]) / 0.01 - 200)
    assert weights[1] == 0  # the case that the shared exponential loses
    ours = built(text, video, torch.tensor(1.0))
    torch.testing.assert_close(ours.double(), released_expressions(built, text, video), rtol=0, atol=2e-4)


def test_gradients_equal_those_of_the_equations():
    built, text, video = head(), embeddings(4, 8), embeddings(3, 5, seed=1)
    leaf = text.tokens.clone().requires_grad_()
    built(text._replace(tokens=leaf), video, torch.tensor(1.0)).square().sum().backward()
    ours = [leaf.grad.double(), *(p.grad.double().clone() for p in built.parameters())]
    built.zero_grad()
    leaf.grad = None
    released_expressions(built, text._replace(tokens=leaf), video).square().sum().backward()
    for mine, theirs in zip(ours, [leaf.grad, *(p.grad for p in built.parameters())], strict=True):
        assert (mine - theirs).norm() < 1e-4 * theirs.norm()


def test_attention_over_equal_scores_is_their_mean_through_the_matrix():
    matrix = torch.tensor([[0.0, 2.0], [0.0, 2.0]])
    assert attend(torch.tensor([0.3, 0.3]), matrix).item() == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("side", "message"), [("words", "texts of 7 word slots.*for 8"), ("frames", "clips of 4 frame")]
)
def test_slots_of_another_number_are_refused_with_the_way_out(side, message):
    text, video = embeddings(2, 7 if side == "words" else 8), embeddings(2, 4 if side == "frames" else 5)
    with pytest.raises(ValueError, match=message):
        head()(text, video, torch.tensor(1.0))


@pytest.mark.parametrize("changes", [{}, {"header": "transformer", "header_layers": 2}, {"header": "lstm"}])
def test_clips_from_stored_frames_equal_clips_from_pixels(changes):
    model = tiny_two_tower(**changes)
    frames, mask = clips(4, 5, is_ragged=True)
    with torch.no_grad():
        whole = model.encode_video(frames, mask)
        stored = model.encode_frames(frames.flatten(0, 1)).unflatten(0, (4, 5))
        parts = model.embed_clips(stored, mask)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_what_fills_empty_frames_never_reaches_the_pooled_video():
    for changes in ({}, {"header": "transformer", "header_layers": 2}, {"header": "lstm"}):
        model = tiny_two_tower(**changes)
        frames, mask = clips(4, 5, is_ragged=True)
        noise = torch.where(mask[..., None, None, None], frames, torch.randn_like(frames))
        with torch.no_grad():
            a, b = (model.encode_video(x, mask).pooled for x in (frames, noise))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_head_computes_in_float32_under_autocast():
    model = tiny_two_tower()
    (ids, mask), (frames, frame_mask) = texts(3, 10), clips(2, 5)
    with torch.no_grad():
        text, video = model.encode_text(ids, mask), model.encode_video(frames, frame_mask)
        expected = model.similarity(text, video)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = model.similarity(text, video)
            lower = model.encode_video(frames, frame_mask)
    assert torch.equal(scores, expected)
    assert lower.tokens.dtype == torch.float32
    assert not torch.equal(lower.tokens, video.tokens)
