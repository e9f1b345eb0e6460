"""Every text against every video: exactly, in blocks, on several processes; or exactly only where a cosine says so.

Q texts, C videos, D width, K best. A row is a text, a column a video, larger is closer, as in `retrieval`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from xclip_module.errors import ConfigError
from xclip_module.evaluation.retrieval import top_videos
from xclip_module.evaluation.retrieval_files import blocks, check_finite_matrix
from xclip_module.interface import Embeddings, VideoTextModel
from xclip_module.run.collectives import fill_rows
from xclip_module.run.distributed import World, share

Similarity = Callable[[Embeddings, Embeddings], Tensor]

# Of ViT-B with 32 words and 12 frames they hold 84 MB on the device, beside what the head makes of them.
TEXTS_PER_BLOCK, VIDEOS_PER_BLOCK = 512, 2048
# Bytes of videos that go to a GPU as a whole for the second stage; more are fetched for each text.
_RESIDENT = 8_000_000_000
# The K of recall that is reported.
_BEST = 10


class CandidateRecall(NamedTuple):
    """How many queries were looked at, and which share of their exact best 1 and best 10 were among the candidates."""

    queries: int
    at_1: float
    at_10: float


class Facts(NamedTuple):
    """What was left out by choosing candidates.

    keep: candidates that every text and every video chose.  exact_share: share of all pairs that were scored exactly.
    t2v, v2t: recall against the exact scores of some texts, of some videos; None = not asked for.
    """

    keep: int
    exact_share: float
    t2v: CandidateRecall | None
    v2t: CandidateRecall | None


class TwoStage(NamedTuple):
    """matrix: [Q, C] float32, exact where a pair is a candidate, below every exact score elsewhere."""

    matrix: np.ndarray
    facts: Facts


@torch.inference_mode()
def score_matrix(text: Embeddings, video: Embeddings, similarity: Similarity, *, world: World) -> np.ndarray:
    """Scores [Q, C] float32 of all texts for all videos, equal to one call of `similarity` but for rounding.

    text, video: of Q and of C rows, on the host; a block of each is on the device at a time, so that memory beside the
    result does not depend on Q and C. Every process brings all of both, scores its run of the texts and gets the whole.
    Raises NonFiniteError with the rows and columns of scores that are no number, on all processes, and PeerError when
    one has ended.
    """
    if text.pooled.shape[1:] != video.pooled.shape[1:]:
        widths = " and ".join(str(tuple(x.pooled.shape)) for x in (text, video))
        raise ValueError(f"pooled texts and videos of shapes {widths}, expected [Q, D] and [C, D] of one model")
    scores = np.empty((len(text.pooled), len(video.pooled)), np.float32)
    for rows in _parts(share(len(scores), world.rank, world.size), TEXTS_PER_BLOCK):
        texts = _placed(text, rows, world.device)
        for columns in _parts(range(scores.shape[1]), VIDEOS_PER_BLOCK):
            scores[rows, columns] = similarity(texts, _placed(video, columns, world.device)).float().cpu().numpy()
    fill_rows(torch.from_numpy(scores), world)
    # Behind the exchange: all processes find the same, and none waits for one that gave up.
    check_finite_matrix(scores)
    return scores


def check_two_stage(model: VideoTextModel) -> None:
    """Raises ConfigError for a model whose pooled embeddings cannot choose candidates; call it before encoding.

    `xclip` and the loose heads of `clip4clip` are trained on this cosine (the former among three others, and through a
    learned matrix that starts as identity). `ms-xclip` scores a text conditioned on the clip; its cosine here is that
    of the text alone, which recall shows to be near or not. The tight head of CLIP4Clip is trained on the output of
    its own encoder only: nothing keeps its pooled features comparable.
    """
    if not model.compares_pooled:
        why = "its training compares no pooled text with a pooled clip, so a cosine of these cannot choose candidates"
        raise ConfigError(f"two-stage scoring with {model.protocol}", why=why, attempt="scoring all pairs exactly")


@torch.inference_mode()
def two_stage(
    text: Embeddings,
    video: Embeddings,
    similarity: Similarity,
    *,
    keep: int,
    world: World,
    sample: int = 50,
    seed: int = 0,
) -> TwoStage:
    """Cosines of the pooled embeddings choose candidates, `similarity` scores these, on all processes.

    keep: every text chooses its best videos and every video its best texts by cosine; a pair is a candidate when
    either chose the other. So both directions have `keep` candidates or more, and whose text is whose plays no part.
    sample: texts, and videos, drawn by `seed`, that are scored exactly to measure recall; 0 = no recall.

    All other pairs lie below every exact score of the whole matrix, in the order of their cosines. So in a row and in a
    column alike candidates come first, in exact order among each other: an own item that is a candidate has its true
    rank among the candidates, one that is not comes after all of them. That is the rank of a search in two stages, not
    a bound of the exact one: what was never scored can no longer stand before the own item either. A column may hold
    more than `keep` candidates, chosen by their texts; they too stand before all that was not scored.
    Raises ValueError for keep < 1 or other widths, NonFiniteError and PeerError as `score_matrix` does.
    """
    if keep < 1:
        raise ValueError(f"keep={keep} candidates, expected 1 or more")
    matrix = score_matrix(_pooled_only(text), _pooled_only(video), cosine, world=world)
    chosen = _candidates(matrix, keep)
    _rescore(matrix, chosen, text, video, similarity, world)
    fill_rows(torch.from_numpy(matrix), world)
    check_finite_matrix(matrix)
    _sink(matrix, chosen)
    t2v, v2t = _recalls(text, video, similarity, chosen, world, sample=sample, seed=seed) if sample else (None, None)
    facts = Facts(keep, int(np.count_nonzero(chosen)) / chosen.size, t2v, v2t)
    return TwoStage(matrix, facts)


def facts_line(facts: Facts) -> str:
    """One line for the log and the report.

    >>> facts_line(Facts(100, 0.017, CandidateRecall(9, 1.0, 0.934), None))
    'best 100 of each side by cosine: 1.7% of pairs scored exactly, holding the best 1 / 10 of 9 texts: 100.0% / 93.4%'
    """
    recalls = [
        f"of {recall.queries} {name}: {recall.at_1:.1%} / {recall.at_10:.1%}"
        for name, recall in (("texts", facts.t2v), ("videos", facts.v2t))
        if recall
    ]
    line = f"best {facts.keep} of each side by cosine: {100 * facts.exact_share:.1f}% of pairs scored exactly"
    return line + (", holding the best 1 / 10 " + ", ".join(recalls) if recalls else "")


def cosine(text: Embeddings, video: Embeddings) -> Tensor:
    """Cosines [Q, C] of pooled texts and pooled videos."""
    text_side, video_side = (x.pooled.float() / x.pooled.float().norm(dim=-1, keepdim=True) for x in (text, video))
    return text_side @ video_side.T


def _parts(rows: range, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size))


def _placed(part: Embeddings, rows: slice | Tensor, device: torch.device) -> Embeddings:
    return Embeddings(*(x[rows].to(device) for x in part))


def _pooled_only(part: Embeddings) -> Embeddings:
    """Without tokens, which are most of what would go to the device."""
    return Embeddings(part.pooled, part.tokens[:, :0], part.mask[:, :0])


def _candidates(scores: np.ndarray, keep: int) -> np.ndarray:
    """[Q, C] bool: among the `keep` best of its row or of its column; of equal ones the lower column, or row."""
    chosen = np.zeros(scores.shape, bool)
    for marks, ordered in ((chosen, scores), (chosen.T, scores.T)):
        np.put_along_axis(marks, top_videos(ordered, keep).videos, True, axis=1)
    return chosen


def _rescore(
    matrix: np.ndarray, chosen: np.ndarray, text: Embeddings, video: Embeddings, similarity: Similarity, world: World
) -> None:
    """Exact scores in place of the chosen ones, in this process's rows.

    A text at a time with all its candidates: one matrix product each, where pair by pair (bmm) would read a text's
    words anew for every video; measured 3 to 10 times faster for 50 candidates and more.
    """
    if sum(x.nbytes for x in video) <= _RESIDENT:
        video = _placed(video, slice(None), world.device)
    for row in share(len(matrix), world.rank, world.size):
        query = _placed(text, slice(row, row + 1), world.device)
        # A text that all videos chose has them all as candidates.
        candidates = np.flatnonzero(chosen[row])
        for part in _parts(range(len(candidates)), VIDEOS_PER_BLOCK):
            columns = candidates[part]
            videos = _placed(video, torch.from_numpy(columns).to(video.pooled.device), world.device)
            matrix[row, columns] = similarity(query, videos)[0].float().cpu().numpy()


def _sink(matrix: np.ndarray, chosen: np.ndarray) -> None:
    """Moves what was not chosen, cosines, below the least chosen one, in place and in their order."""
    parts = list(blocks(*matrix.shape))
    least = min(np.min(matrix[rows], where=chosen[rows], initial=np.inf) for rows in parts)
    # Spread in proportion to the offset, or cosines would fall together in float32 where scores are large.
    spread = np.float32(max(1.0, abs(least)))
    for rows in parts:
        # A cosine is at most 1, so that less 2 every one comes out below 0.
        sunk = np.float32(least) + spread * (matrix[rows] - np.float32(2))
        np.copyto(matrix[rows], sunk, where=~chosen[rows])


def _recalls(
    text: Embeddings,
    video: Embeddings,
    similarity: Similarity,
    chosen: np.ndarray,
    world: World,
    *,
    sample: int,
    seed: int,
) -> tuple[CandidateRecall, CandidateRecall]:
    """Of some texts, and of some videos: one strip of exact scores each."""
    rows, columns = (
        np.sort(np.random.default_rng(seed).choice(count, min(sample, count), replace=False)) for count in chosen.shape
    )
    some_texts, some_videos = Embeddings(*(x[rows] for x in text)), Embeddings(*(x[columns] for x in video))
    exact_rows = score_matrix(some_texts, video, similarity, world=world)
    exact_columns = score_matrix(text, some_videos, similarity, world=world)
    return _recall(exact_rows, chosen[rows]), _recall(exact_columns.T, chosen.T[columns])


def _recall(exact: np.ndarray, chosen: np.ndarray) -> CandidateRecall:
    """exact: [n, C] scores of some queries.  chosen: [n, C] their candidates."""
    is_kept = np.take_along_axis(chosen, top_videos(exact, _BEST).videos, axis=1)  # [n, K]
    return CandidateRecall(len(is_kept), float(is_kept[:, 0].mean()), float(is_kept.mean()))
