"""1000 texts x 1000 clips through the multi-grained head, beside the released expressions.

B texts, V videos, W words, F frames, D width.
"""

import torch
from torch import Tensor

from xclip_module.benchmark.meter import measured, table
from xclip_module.benchmark.models import vit_b
from xclip_module.interface import Embeddings
from xclip_module.models.similarity import MultiGrained, normalise
from xclip_module.models.two_tower import TwoTower

_COUNT, WORDS, FRAMES, WIDTH, _BLOCK = 1000, 32, 12, 512, 40
_EVALUATION, _HEAD, _OURS = "released, as it evaluates", "released, head alone", "ours, head alone"


@torch.inference_mode()
def run(device: torch.device) -> list[str]:
    """Time and peak memory above the features, and the largest difference."""
    generator = torch.Generator().manual_seed(0)
    model = with_header(device, generator)
    sentences, words, frames = (
        # Drawn towards one direction, as CLIP's features are.
        (torch.randn(_COUNT, slots, WIDTH, generator=generator) + 1.0).to(device)
        for slots in (1, WORDS, FRAMES)
    )
    mask = torch.ones(_COUNT, FRAMES, dtype=torch.bool, device=device)
    text = Embeddings(sentences[:, 0], words, torch.ones(_COUNT, WORDS, dtype=torch.bool, device=device))
    videos = model.embed_clips(frames, mask)
    rows, scores = {}, {}
    for name, score in (
        (_EVALUATION, lambda: released(model, text, videos, has_header=True)),
        ("ours, header once", lambda: model.similarity(text, model.embed_clips(frames, mask))),
        (_HEAD, lambda: released(model, text, videos, has_header=False)),
        (_OURS, lambda: model.similarity(text, videos)),
    ):
        with measured(device) as rows[name]:
            scores[name] = score()
    worst = max((scores[_OURS] - other).abs().max().item() for other in scores.values())
    return [
        f"similarity: {_COUNT} x {_COUNT}, {WORDS} words, {FRAMES} frames, D {WIDTH}, blocks of {_BLOCK} x {_BLOCK}",
        "the released evaluation runs the temporal header again for every block of texts",
        *table(rows, against=_EVALUATION),
        f"head alone against head alone: {rows[_HEAD].seconds / rows[_OURS].seconds:.1f}x",
        f"largest difference {worst / model.logit_scale.exp().item():.1e} (of unscaled scores)",
    ]


def with_header(device: torch.device, generator: torch.Generator) -> TwoTower:
    """ViT-B/32 `xclip` with a temporal transformer, its head's matrices a little away from identity."""
    model = vit_b(32, header="transformer", words=WORDS, frames=FRAMES).to(device)
    for matrix in model.head.parameters():
        matrix.add_(0.02 * torch.randn(matrix.shape, generator=generator).to(device) / len(matrix) ** 0.5)
    return model


def released(model: TwoTower, text: Embeddings, videos: Embeddings, *, has_header: bool) -> Tensor:
    """Every text block against every video block; with the header it is computed from the frames in each of them."""
    head = model.head
    assert isinstance(head, MultiGrained), "the benchmark's model is an xclip"
    rows = []
    for b in range(0, len(text.pooled), _BLOCK):
        texts = Embeddings(*(x[b : b + _BLOCK] for x in text))
        row = []
        for v in range(0, len(videos.pooled), _BLOCK):
            part = Embeddings(*(x[v : v + _BLOCK] for x in videos))
            row.append(released_block(head, texts, model.embed_clips(*part[1:]) if has_header else part))
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows) * model.logit_scale.exp()


def released_block(head: MultiGrained, text: Embeddings, video: Embeddings) -> Tensor:
    """The four granularities in the order of operations of the released code: two softmaxes, permuted copies."""
    s, w, g, f = (normalise(x) for x in (text.pooled, text.tokens, video.pooled, video.tokens))
    fine = ((w @ head.local_mat_weight) @ f.flatten(0, 1).T).unflatten(2, f.shape[:2])  # [B, W, V, F]
    over_words = torch.softmax(fine / 0.01, dim=1).permute(0, 2, 3, 1) @ head.word_mat_weight
    by_frame = (over_words.permute(0, 3, 1, 2) * fine).sum(1)  # [B, V, F]
    by_word = ((torch.softmax(fine / 0.01, dim=-1) @ head.frame_mat_weight) * fine).sum(-1)  # [B, W, V]
    total = s @ head.global_mat_weight @ g.T
    video_word = w @ g.T  # [B, W, V]
    weights = (torch.softmax(video_word / 0.01, dim=1).permute(0, 2, 1) @ head.word_logit_weight).permute(0, 2, 1)
    total = total + (weights * video_word).sum(1)
    sentence_frame = (s @ f.flatten(0, 1).T).unflatten(1, f.shape[:2])  # [B, V, F]
    total = total + ((torch.softmax(sentence_frame / 0.01, dim=-1) @ head.frame_logit_weight) * sentence_frame).sum(-1)
    last = ((torch.softmax(by_frame / 0.01, dim=-1) @ head.frame_mat_weight2) * by_frame).sum(-1)
    weights = (torch.softmax(by_word / 0.01, dim=1).permute(0, 2, 1) @ head.word_mat_weight2).permute(0, 2, 1)
    return (total + (last + (weights * by_word).sum(1)) / 2) / 4
