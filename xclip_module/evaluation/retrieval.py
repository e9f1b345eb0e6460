"""Text-video retrieval in both directions: ranks, R@K, median and mean rank, and what chance would reach.

`python -m xclip_module.evaluation.retrieval similarity.npz [--json]` judges the matrix of any tool. N texts, V videos,
Q videos that have a text. A row is a text, a column a video, larger is closer. Inside, results are fractions and ranks
count from 0; MdR and MnR count from 1, as the papers print them.
"""

import argparse
import bisect
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from xclip_module.evaluation.command_line import print_result
from xclip_module.evaluation.retrieval_files import Scores, blocks, checked, checked_matrix, read_similarity

KS = (1, 5, 10)
BEST_CAPTION, ANY_CAPTION = "best-caption", "any-caption"
PROTOCOLS = (BEST_CAPTION, ANY_CAPTION)


class Ranks(NamedTuple):
    """Places from 0: t2v [N] of each text's video, v2t [Q] of each video's text; videos [Q]: the columns of v2t."""

    t2v: np.ndarray
    v2t: np.ndarray
    videos: np.ndarray


class Top(NamedTuple):
    """videos, scores: [N, K], the columns that score best for each text, best first."""

    videos: np.ndarray
    scores: np.ndarray


def ranks(similarity: Any, text_to_video: Any = None, *, protocol: str = BEST_CAPTION) -> Ranks:
    """The place of every query's own item, 0 = first: the number of scores >= its own, minus one.

    similarity: [N, V] floats or integers.  text_to_video: [N] columns, None = the diagonal of a square matrix.
    protocol: what a video is compared with where it has several texts; the same where each has one.
    - "best-caption": with the videos' best captions, Q candidates, as CLIP4Clip and X-CLIP do for MSVD;
    - "any-caption": with all N captions; its place is that of its best own one, as image-text retrieval counts.
    A video without a text is a candidate of t2v and takes no part in v2t. A tie counts against us: equal scores stand
    before the own one (other captions of the own video do not). Infinities are numbers like others: -inf comes last,
    and after all other -inf. Raises NonFiniteError for NaN and DataError for what `retrieval_files.checked` refuses.

    Source: CLIP4Clip (Luo et al. 2022) metrics.py, also X-CLIP's (Ma et al. 2022), to which this is equal without ties.
    It differs where that gives a tied query several ranks, and drops a query whose own score is NaN or infinite; here
    every query has one rank. Memory beside the matrix is bounded, whatever its size.

    >>> ranks(np.array([[0.9, 0.1], [0.8, 0.2]])).t2v
    array([0, 1])
    """
    _check_protocol(protocol)
    scores = checked(similarity, text_to_video)
    of_videos = _best_caption_ranks if protocol == BEST_CAPTION else _any_caption_ranks
    return Ranks(_text_ranks(scores), of_videos(scores), np.unique(scores.text_to_video))


def top_videos(similarity: Any, k: int) -> Top:
    """The min(k, V) best videos of every text with their scores; equal scores by column, the lower one first.

    A rank puts the own video after its equals (see `ranks`), so that it may stand first here and have another rank.

    >>> top_videos(np.array([[1, 3, 3, 2]]), 2).videos
    array([[1, 2]])
    """
    if k < 1:
        raise ValueError(f"k={k}, expected 1 or more")
    similarity = checked_matrix(similarity)
    texts, videos = similarity.shape
    k = min(k, videos)
    best = np.empty((texts, k), np.int64)
    for rows in blocks(texts, videos):
        best[rows] = _best_columns(similarity[rows], k)
    return Top(best, np.take_along_axis(similarity, best, axis=1))


def retrieval_metrics(
    similarity: Any, text_to_video: Any = None, *, ks: Sequence[int] = KS, protocol: str = BEST_CAPTION
) -> dict[str, float]:
    """`metrics` of the `ranks` of a similarity matrix; see both for what is counted, and how.

    >>> retrieval_metrics(np.eye(4))["t2v/R@1"]
    1.0
    """
    return metrics(ranks(similarity, text_to_video, protocol=protocol), ks=ks)


def metrics(places: Ranks, *, ks: Sequence[int] = KS) -> dict[str, float]:
    """t2v/R@K for every K, t2v/MdR, t2v/MnR, and the same of v2t.

    R@K: fraction of the queries whose own item is among the first K.  MdR, MnR: median and mean rank, first = 1. Of an
    even number of queries the median is the mean of the middle two, as in CLIP4Clip's metrics.py; its routine for
    several captions takes the lower one (torch.median).
    """
    values: dict[str, float] = {}
    for direction, of_queries in (("t2v", places.t2v), ("v2t", places.v2t)):
        recalls = zip(ks, recall_at(of_queries, ks), strict=True)
        values |= {f"{direction}/R@{k}": float(value) for k, value in recalls}
        from_one = of_queries + 1
        values |= {f"{direction}/MdR": float(np.median(from_one)), f"{direction}/MnR": float(from_one.mean())}
    return values


def recall_at(places: np.ndarray, ks: Sequence[int]) -> np.ndarray:
    """R@K [K] of places from 0 [Q], fractions.

    >>> recall_at(np.array([0, 3, 1, 9]), [1, 5, 10])
    array([0.25, 0.75, 1.  ])
    """
    if min(ks, default=1) < 1:
        raise ValueError(f"K of R@K is {min(ks)}, expected 1 or more")
    return np.searchsorted(np.sort(places), ks) / len(places)


def chance(
    text_to_video: Any, videos: int, *, ks: Sequence[int] = KS, protocol: str = BEST_CAPTION
) -> dict[str, float]:
    """The same keys, as expected from random scores without ties; MdR is the median of one random rank.

    Every text has rank 1 … V with the same probability: R@K = K/V, MdR = MnR = (V+1)/2. Under "best-caption" videos
    with more captions come first for every query; over all queries that cancels, and the same holds with Q for V. Under
    "any-caption" the best of n own texts among N is expected at (N+1)/(n+1), and outside the first K with probability
    C(N-n, K) / C(N, K).

    >>> chance([0, 1, 2, 3], 4)["t2v/R@1"], chance([0, 0, 0, 1], 2, protocol="any-caption")["v2t/MnR"]
    (0.25, 1.875)
    """
    _check_protocol(protocol)
    counts = np.bincount(text_to_video)
    counts = counts[counts > 0]
    of_videos = _any_caption_chance(counts, ks) if protocol == ANY_CAPTION else _uniform_chance(len(counts), ks)
    named = {"t2v": _uniform_chance(videos, ks), "v2t": of_videos}
    return {f"{direction}/{key}": value for direction, values in named.items() for key, value in values.items()}


def _check_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r}, expected {' or '.join(PROTOCOLS)}")


def _text_ranks(scores: Scores) -> np.ndarray:
    similarity, owner = scores
    own_scores = similarity[np.arange(len(owner)), owner]
    places = np.empty(len(owner), np.int64)
    for rows in blocks(*similarity.shape):
        # Less the own score, which is as high as itself.
        places[rows] = np.count_nonzero(similarity[rows] >= own_scores[rows, None], axis=1) - 1
    return places


def _best_caption_ranks(scores: Scores) -> np.ndarray:
    """v2t [Q]: the place of a video's own best caption among the best captions of all videos."""
    similarity, owner = scores
    order = np.argsort(owner, kind="stable")
    videos, starts = np.unique(owner[order], return_index=True)
    places = np.empty(len(videos), np.int64)
    for part in blocks(len(videos), len(owner)):
        best = np.maximum.reduceat(similarity[np.ix_(order, videos[part])], starts, axis=0)  # [Q captions, part]
        own_best = best[part].diagonal()
        places[part] = np.count_nonzero(best >= own_best, axis=0) - 1
    return places


def _any_caption_ranks(scores: Scores) -> np.ndarray:
    """v2t [Q]: how many captions of other videos score at least as high as the best own one."""
    similarity, owner = scores
    order = np.argsort(owner, kind="stable")
    videos, starts, counts = np.unique(owner[order], return_index=True, return_counts=True)
    own_scores = similarity[order, owner[order]]
    best = np.maximum.reduceat(own_scores, starts)
    equal = np.add.reduceat(own_scores == np.repeat(best, counts), starts, dtype=np.int64)
    places = np.empty(len(videos), np.int64)
    for part in blocks(len(videos), len(owner)):
        places[part] = np.count_nonzero(similarity[:, videos[part]] >= best[part], axis=0) - equal[part]
    return places


def _best_columns(block: np.ndarray, k: int) -> np.ndarray:
    """[rows, k] columns, best first; never a whole sorted matrix, and of equal scores the lower columns."""
    limit = np.partition(block, block.shape[1] - k, axis=1)[:, [-k]]  # the k-th best score
    above = block > limit
    room = k - np.count_nonzero(above, axis=1)
    equal = block == limit
    kept = above | (equal & (np.cumsum(equal, axis=1, dtype=np.int32) <= room[:, None]))
    columns = np.nonzero(kept)[1].reshape(-1, k)
    values = np.take_along_axis(block, columns, axis=1)
    # Ascending and stable from the right is descending and stable from the left, for any type of number.
    order = k - 1 - np.argsort(values[:, ::-1], axis=1, kind="stable")[:, ::-1]
    return np.take_along_axis(columns, order, axis=1)


def _uniform_chance(candidates: int, ks: Sequence[int]) -> dict[str, float]:
    middle = (candidates + 1) / 2
    return {**{f"R@{k}": min(k, candidates) / candidates for k in ks}, "MdR": middle, "MnR": middle}


def _any_caption_chance(counts: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    total = int(counts.sum())
    sizes, videos = (part.tolist() for part in np.unique(counts, return_counts=True))
    shares = [number / len(counts) for number in videos]

    def recall(k: int) -> float:
        k = min(k, total)
        # C(N-n, K) / C(N, K) in numbers of n factors instead of K.
        missed = (math.perm(total - k, size) / math.perm(total, size) for size in sizes)
        return sum(share * (1 - outside) for share, outside in zip(shares, missed, strict=True))

    middle = 1 + bisect.bisect_left(range(1, total + 1), 0.5, key=recall)
    mean = sum(share * (total + 1) / (size + 1) for share, size in zip(shares, sizes, strict=True))
    return {
        **{f"R@{k}": recall(k) for k in ks},
        # Where one half lies below exactly, the median is between two ranks.
        "MdR": middle + 0.5 * (recall(middle) == 0.5),
        "MnR": mean,
    }


def _table(values: Mapping[str, float], expected: Mapping[str, float], scores: Scores, protocol: str) -> str:
    lines = [f"{'percent':10}" + "".join(f"{f'R@{k}':>10}" for k in KS) + f"{'MdR':>10}{'MnR':>10}"]
    for direction in ("t2v", "v2t"):
        for name, shown in ((direction, values), ("  chance", expected)):
            cells = [f"{100 * shown[f'{direction}/R@{k}']:>10.2f}" for k in KS]
            cells += [f"{shown[f'{direction}/{key}']:>10.1f}" for key in ("MdR", "MnR")]
            lines.append(f"{name:10}" + "".join(cells))
    texts, videos = scores.similarity.shape
    lines.append(
        f"{texts} texts, {videos} videos; v2t protocol {protocol}; MdR and MnR count from 1; ties count against"
    )
    return "\n".join([*lines, *_notes(scores)])


def _notes(scores: Scores) -> list[str]:
    lacking = scores.similarity.shape[1] - len(np.unique(scores.text_to_video))
    return [f"videos without a text: {lacking}, candidates of t2v and no part of v2t"] if lacking else []


def _judge(path: Path, protocol: str, *, is_json: bool) -> str:
    scores = read_similarity(path)
    values = retrieval_metrics(*scores, protocol=protocol)
    if is_json:
        sys.stderr.writelines(f"note: {line}\n" for line in _notes(scores))
        return json.dumps(values)
    expected = chance(scores.text_to_video, scores.similarity.shape[1], protocol=protocol)
    return _table(values, expected, scores, protocol)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints R@K, MdR and MnR of a similarity matrix beside chance in percent, or as JSON fractions; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m xclip_module.evaluation.retrieval", description=main.__doc__)
    parser.add_argument("file", type=Path, help=".npz: similarity [texts, videos], text_to_video [texts] unless square")
    parser.add_argument("--v2t", choices=PROTOCOLS, default=BEST_CAPTION, help="where videos have several texts")
    parser.add_argument("--json", action="store_true", help="one JSON object, fractions")
    chosen = parser.parse_args(arguments)
    return print_result(lambda: _judge(chosen.file, chosen.v2t, is_json=chosen.json))


if __name__ == "__main__":
    sys.exit(main())
