"""What a retrieval run leaves for others to look at: ranks.csv for people, similarity.npz for programs.

N texts, V videos. Arrays in, text or bytes out.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from xclip_module.evaluation.retrieval import ranks, top_videos
from xclip_module.evaluation.retrieval_files import Scores, checked

# Videos of a text in ranks.csv.
_TOP = 5


def ranks_csv(similarity: Any, text_to_video: Any, *, texts: Sequence[str], videos: Sequence[str]) -> str:
    """A line per text: query (its row), text, video (its own), rank (first = 1), top1, top1_score, … top5_score.

    similarity, text_to_video: as for `retrieval.ranks`.  texts: [N].  videos: [V] ids. With fewer than five videos the
    last cells are empty. Scores have as many digits as their type holds. Texts and ids are quoted; what no file can
    hold (half of a surrogate pair) is written as its escape.
    pandas takes the text "NA" for a missing value and the id "007" for 7 unless it is told not to:
    `pandas.read_csv(path, dtype={"text": str, "video": str, "top1": str, …}, keep_default_na=False)`.
    """
    scores = _named(similarity, text_to_video, texts, videos)
    places = ranks(*scores).t2v.tolist()
    best = top_videos(scores.similarity, _TOP)
    shown = best.scores.astype(str).tolist()
    owners = scores.text_to_video.tolist()
    head = ["query", "text", "video", "rank", *(f"top{n}{what}" for n in range(1, _TOP + 1) for what in ("", "_score"))]
    lines = [",".join(head)]
    for row, (columns, values) in enumerate(zip(best.videos.tolist(), shown, strict=True)):
        cells = [str(row), _quoted(texts[row]), _quoted(videos[owners[row]]), str(places[row] + 1)]
        for column, value in zip(columns, values, strict=True):
            cells += [_quoted(videos[column]), value]
        lines.append(",".join([*cells, *[""] * (len(head) - len(cells))]))
    text = "".join(f"{line}\n" for line in lines)
    return text.encode(errors="backslashreplace").decode()


def similarity_archive(similarity: Any, text_to_video: Any, *, texts: Sequence[str], videos: Sequence[str]) -> bytes:
    """An .npz that `python -m xclip_module.evaluation.retrieval` judges: similarity, text_to_video, texts, videos.

    The names are plain text arrays: nothing in the file is pickled. Not compressed: scores hardly shrink, and a large
    matrix would take minutes.
    """
    scores = _named(similarity, text_to_video, texts, videos)
    file = io.BytesIO()
    np.savez(file, **scores._asdict(), texts=np.array(texts, dtype=str), videos=np.array(videos, dtype=str))
    return file.getvalue()


def _named(similarity: Any, text_to_video: Any, texts: Sequence[str], videos: Sequence[str]) -> Scores:
    scores = checked(similarity, text_to_video)
    if (len(texts), len(videos)) != scores.similarity.shape:
        raise ValueError(f"{len(texts)} texts, {len(videos)} videos: similarity is {scores.similarity.shape}")
    return scores


def _quoted(text: str) -> str:
    """In quotes always: Python's csv leaves a carriage return bare in some versions, and readers end the line there."""
    return '"' + text.replace('"', '""') + '"'
