"""Heads: how texts and clips are compared.

B texts, V videos, W word slots, F frame slots, D width. Every head gives logits [B, V], rows are texts.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from xclip_module.interface import Embeddings
from xclip_module.models.temporal import HEADER_EPSILON, MaskedBlocks

# tau of X-CLIP, the best of 1, 0.1, 0.01 and 0.001 in its ablation; the code has it fixed.
TEMPERATURE = 0.01
# Elements of the [B, W, V, F] similarity that exist at a time: what stays in a core's cache, and what fills a GPU.
_CPU_BLOCK = 800_000
_GPU_BLOCK = 30_000_000
# The softmaxes over words and over frames share one exponential, shifted so that its largest entry is exp(_PEAK);
# a sum below _FAINT means that one slice lies too far under the block's maximum for float32.
_PEAK = 60.0
_FAINT = 1e-30
# hidden_dropout_prob of the released cross encoder; its blocks have none.
_CROSS_DROPOUT = 0.1


def normalise(x: Tensor) -> Tensor:
    """Unit length along the last axis, without an epsilon, as released."""
    return x / x.norm(dim=-1, keepdim=True)


def attend(scores: Tensor, matrix: Tensor, real: Tensor | None = None) -> Tensor:
    """Attention over the similarity along the last axis: sum_j S_j [softmax(S / 0.01) M]_j.

    scores: [..., n].  matrix: [n, n].  real: [..., n] bool keeps empty slots out, None lets them take part.
    Source: X-CLIP (Ma et al. 2022) eq. 8-13 (AOSM); the learned matrix is in the code only.

    >>> attend(torch.tensor([0.5, 0.5]), torch.eye(2))
    tensor(0.5000)
    """
    weights = scores / TEMPERATURE
    if real is not None:
        weights = weights.masked_fill(~real, -torch.inf)
        scores = scores.masked_fill(~real, 0.0)
    # The row of weights times the matrix, not normalised again, as released; with the identity, the paper's equations.
    return ((torch.softmax(weights, dim=-1) @ matrix) * scores).sum(-1)


class MultiGrained(nn.Module):
    """X-CLIP's four granularities with attention over the similarity matrix and eight learned matrices.

    With s a sentence, w_i its words, g a video, f_j its frames, all of unit length, and A_k(S; M) = `attend` along k:

        video-sentence  s G g                        G  global_mat_weight
        video-word      A_w(w_i g; M)                M  word_logit_weight
        sentence-frame  A_f(s f_j; M)                M  frame_logit_weight
        frame-word      S_ij = w_i L f_j             L  local_mat_weight
                        A_f(A_w(S; M); M2) / 2       M, M2  word_mat_weight, frame_mat_weight2
                        + A_w(A_f(S; M); M2) / 2     M, M2  frame_mat_weight, word_mat_weight2

    logits = scale * (video-sentence + video-word + sentence-frame + frame-word) / 4.
    Source: X-CLIP (Ma et al. 2022) sections 3.2-3.4 and modules/modeling_xclip.py; parameters bear the released names.
    Frames are the frame encoder's outputs; the temporal header acts on the pooled video only, as in the released code.
    `masked` (ours) keeps empty word and frame slots out of every softmax and sum; the released code lets them in.
    """

    def __init__(self, width: int, *, words: int, frames: int, masked: bool = False):
        """All eight matrices start as identity, as released."""
        super().__init__()
        self.masked = masked
        self.global_mat_weight = nn.Parameter(torch.eye(width))
        self.local_mat_weight = nn.Parameter(torch.eye(width))
        self.word_logit_weight = nn.Parameter(torch.eye(words))
        self.frame_logit_weight = nn.Parameter(torch.eye(frames))
        self.word_mat_weight = nn.Parameter(torch.eye(words))
        self.word_mat_weight2 = nn.Parameter(torch.eye(words))
        self.frame_mat_weight = nn.Parameter(torch.eye(frames))
        self.frame_mat_weight2 = nn.Parameter(torch.eye(frames))

    def forward(self, text: Embeddings, video: Embeddings, scale: Tensor) -> Tensor:
        """Logits [B, V] in blocks of bounded memory; raises ValueError when the slots are not the matrices' sizes."""
        self._check_slots(text, video)
        text = Embeddings(normalise(text.pooled), normalise(text.tokens), text.mask)
        video = Embeddings(normalise(video.pooled), normalise(video.tokens), video.mask)
        # Projected once for all videos, and in units of the temperature, so that both softmaxes can read the product.
        projected = text.tokens @ self.local_mat_weight / TEMPERATURE  # [B, W, D]
        # Of 1,000 texts and videos [B, W, V, F] alone would take 1.5 GB.
        texts, videos = _block_sizes(text.tokens, video.tokens)
        rows = [
            self._row(part, words, video, videos)
            for part, words in zip(_split(text, texts), projected.split(texts), strict=True)
        ]
        return scale * torch.cat(rows)

    def _check_slots(self, text: Embeddings, video: Embeddings) -> None:
        words, frames = len(self.word_mat_weight), len(self.frame_mat_weight)
        if text.tokens.shape[1] != words:
            raise ValueError(
                f"texts of {text.tokens.shape[1]} word slots, this model's matrices are for {words}: "
                f"pad input_ids with 0 to {words}"
            )
        if video.tokens.shape[1] != frames:
            raise ValueError(
                f"clips of {video.tokens.shape[1]} frame slots, this model's matrices are for {frames}: "
                f"sample {frames} frames, or pad with zero pictures and mask"
            )

    def _row(self, text: Embeddings, projected: Tensor, video: Embeddings, videos: int) -> Tensor:
        """Mean of the four granularities of a few texts with all videos, normalised features: [B, V].

        Only the frame-word similarity needs blocks of `videos`; whatever is smaller is computed for the row at once.
        """
        real_words = text.mask[:, None, :] if self.masked else None  # [B, 1, W]
        real_frames = video.mask[None, :, :] if self.masked else None  # [1, V, F]
        blocks = [self._frame_word(projected, part.tokens, text.mask, part.mask) for part in _split(video, videos)]
        by_frame, by_word = (torch.cat(parts, dim=1) for parts in zip(*blocks, strict=True))  # [B, V, F], [B, V, W]
        fine = attend(by_frame, self.frame_mat_weight2, real_frames)
        fine = fine + attend(by_word, self.word_mat_weight2, real_words)
        video_word = torch.einsum("bwd,vd->bvw", text.tokens, video.pooled)
        sentence_frame = torch.einsum("bd,vfd->bvf", text.pooled, video.tokens)
        total = (
            text.pooled @ self.global_mat_weight @ video.pooled.T
            + attend(video_word, self.word_logit_weight, real_words)
            + attend(sentence_frame, self.frame_logit_weight, real_frames)
            + fine / 2
        )
        return total / 4

    def _frame_word(self, projected: Tensor, frames: Tensor, words_real: Tensor, frames_real: Tensor):
        """First attention of frame-word, words summed out [B, V, F] and frames summed out [B, V, W]."""
        slots = (*projected.shape[:2], *frames.shape[:2])  # B, W, V, F
        scaled = (projected.flatten(0, 1) @ frames.flatten(0, 1).T).view(slots)
        if not self.masked:
            both = _attend_both(scaled, self.word_mat_weight, self.frame_mat_weight)
            if both is not None:
                return both
        # Masked, or too far apart for one exponential: each direction on its own.
        scores = scaled * TEMPERATURE
        real = words_real[:, None, None, :] if self.masked else None  # [B, 1, 1, W]
        by_frame = attend(scores.permute(0, 2, 3, 1), self.word_mat_weight, real)  # [B, V, F]
        real = frames_real[None, None] if self.masked else None  # [1, 1, V, F]
        by_word = attend(scores, self.frame_mat_weight, real)  # [B, W, V]
        return by_frame, by_word.transpose(1, 2)


class MeanPooling(nn.Module):
    """Cosine of the sentence and the mean-pooled video ("meanP"); also behind the temporal headers of CLIP4Clip.

    Source: CLIP4Clip (Luo et al. 2022) section 3.3, modules/modeling.py.
    """

    def forward(self, text: Embeddings, video: Embeddings, scale: Tensor) -> Tensor:
        """Logits [B, V]."""
        return scale * normalise(text.pooled) @ normalise(video.pooled).T


class CrossEncoder(nn.Module):
    """Every (text, clip) pair through one transformer over [sentence; frames] ("tightTransf").

    Neither normalised nor scaled: the logit scale takes no part. In train mode the embedded sequence goes through the
    released dropout. Source: CLIP4Clip (Luo et al. 2022) section 3.3, modules/module_cross.py.
    """

    def __init__(self, width: int, *, layers: int, context: int):
        """Random weights; `context` bounds 1 + frames."""
        super().__init__()
        self.positions = nn.Embedding(context, width)
        self.encoder = MaskedBlocks(width, layers)
        self.norm = nn.LayerNorm(width, eps=HEADER_EPSILON)
        self.dense = nn.Linear(width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, text: Embeddings, video: Embeddings, scale: Tensor) -> Tensor:
        """Logits [B, V], a block of pairs at a time; `scale` is not used."""
        texts, videos = _block_sizes(text.pooled[:, None], video.tokens)
        rows = [
            torch.cat([self._pairs(sentences, part) for part in _split(video, videos)], dim=1)
            for sentences in text.pooled.split(texts)
        ]
        return torch.cat(rows)

    def _pairs(self, sentences: Tensor, video: Embeddings) -> Tensor:
        b, (v, f) = len(sentences), video.mask.shape
        pairs = [sentences[:, None, None].expand(-1, v, -1, -1), video.tokens.expand(b, -1, -1, -1)]
        sequence = torch.cat(pairs, dim=2).flatten(0, 1)  # [B*V, 1+F, D]
        mask = torch.cat([video.mask.new_ones(v, 1), video.mask], dim=1).repeat(b, 1)
        embedded = dropout(sequence + self.positions.weight[: 1 + f], _CROSS_DROPOUT, self.training)
        states = self.encoder(embedded, mask)
        pooled = self.dense(self.norm(states)[:, 0])
        # QuickGELU, x sigmoid(1.702 x), as everywhere in CLIP.
        return self.score(pooled * torch.sigmoid(1.702 * pooled)).view(b, v)


def _attend_both(scaled: Tensor, word_matrix: Tensor, frame_matrix: Tensor) -> tuple[Tensor, Tensor] | None:
    """`attend` over words [B, V, F] and over frames [B, V, W] of one similarity, or None where float32 cannot.

    scaled: [B, W, V, F] similarity over TEMPERATURE. A softmax is invariant to a shift, so one exponential serves both
    directions; sum_j S_j (p M)_j = sum_i p_i (M S)_i spares the normalised weights their own tensors.
    """
    b, w, v, f = scaled.shape
    # Detached: the result does not depend on the shift, so neither does its gradient.
    weights = torch.exp(scaled - (scaled.detach().amax() - _PEAK))
    over_words, over_frames = weights.sum(1), weights.sum(3)  # [B, V, F], [B, W, V]
    if not torch.minimum(over_words.amin(), over_frames.amin()) > _FAINT:
        return None
    # bmm reads the matrix in place for every text; matmul would turn the large operand around and back.
    mixed = torch.bmm(word_matrix.expand(b, -1, -1), scaled.view(b, w, v * f))
    by_frame = (mixed * weights.view(b, w, v * f)).sum(1).view(b, v, f) / over_words
    by_word = ((scaled.view(-1, f) @ frame_matrix.T).view(b, w, v, f) * weights).sum(3) / over_frames
    return by_frame * TEMPERATURE, by_word.transpose(1, 2) * TEMPERATURE


def _block_sizes(left: Tensor, right: Tensor) -> tuple[int, int]:
    """Texts and clips per block, so that all pairs of their tokens stay within the bounded number of elements."""
    budget = _GPU_BLOCK if left.is_cuda else _CPU_BLOCK
    clips = max(1, min(len(right), int((budget / (left.shape[1] * right.shape[1])) ** 0.5) * 2))
    texts = max(1, budget // (left.shape[1] * right.shape[1] * clips))
    return texts, clips


def _split(part: Embeddings, size: int) -> Iterator[Embeddings]:
    return (Embeddings(*rows) for rows in zip(*(x.split(size) for x in part), strict=True))
