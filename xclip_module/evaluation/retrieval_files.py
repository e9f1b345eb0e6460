"""A similarity matrix and whose text is whose, checked at the border: from a caller, or from an .npz file of any tool.

N texts, V videos.
"""

import shlex
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from xclip_module.errors import DataError, MemoryShortage, NonFiniteError

# Scores that are looked at in one go: what a block costs beside the matrix stays below a few dozen MB.
_BLOCK = 1 << 21
# Rows, columns and keys that a message names one by one.
_SHOWN = 5
_SAVE = "numpy.savez(FILE, similarity=..., text_to_video=...)"


class Scores(NamedTuple):
    """similarity: [N, V], larger is closer, no NaN.  text_to_video: [N] int64, the column of each text's video."""

    similarity: np.ndarray
    text_to_video: np.ndarray


def blocks(length: int, width: int) -> Iterator[slice]:
    """Slices of 0 … length, each of as many lines of `width` scores as one block of memory may hold.

    >>> [part.stop for part in blocks(3, 1 << 20)]
    [2, 3]
    """
    step = max(1, _BLOCK // max(1, width))
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def checked(similarity: Any, text_to_video: Any = None, *, file: object = "") -> Scores:
    """The scores as arrays, of which every one is a number and every text has a video; nothing is copied.

    similarity: [N, V] of any float or integer type.  text_to_video: [N] integers; None stands for the diagonal of a
    square matrix.  file: where they come from, for the message. Infinities are ordered as they are and pass.
    Raises DataError for wrong types, shapes and indices, NonFiniteError for NaN with the rows and columns that hold it:
    a video that could not be decoded must not leave the averages unseen.
    """
    similarity = checked_matrix(similarity, file=file)
    return Scores(similarity, _checked_index(text_to_video, similarity.shape, file))


def checked_matrix(similarity: Any, *, file: object = "") -> np.ndarray:
    """The same for the matrix [N, V] alone, where nobody asks whose text is whose."""
    similarity = np.asarray(similarity)
    if similarity.dtype.kind not in "fiu":
        raise DataError("wrong similarity", file, f"found {similarity.dtype}, expected floats or integers")
    if similarity.ndim != 2 or 0 in similarity.shape:
        shape = "×".join(map(str, similarity.shape)) or "a single number"
        raise DataError("wrong similarity", file, f"found shape {shape}, expected texts × videos, at least one of each")
    if similarity.dtype.kind == "f":
        attempt = "look whether these texts and videos were read at all"
        _refuse(similarity, np.isnan, "NaN similarity", file, attempt)
    return similarity


def check_finite_matrix(similarity: np.ndarray) -> None:
    """Raises NonFiniteError with the rows and columns [N, V] that hold NaN or infinity, as computed scores must not."""
    attempt = "--run.precision=fp32, or look whether these texts and videos were read at all"
    _refuse(similarity, lambda block: ~np.isfinite(block), "scores are not finite", "", attempt)


def read_similarity(path: Path) -> Scores:
    """The matrix `similarity` and, where it is there, the index `text_to_video` of an .npz; nothing in it is executed.

    Raises DataError, NonFiniteError and MemoryShortage, each with the file and what was found in it.
    """
    try:
        with path.open("rb") as file:
            similarity, owner = _members(file, path)
    except OSError as error:
        attempt = f"ls -l {shlex.quote(str(path.parent))}"
        raise DataError("unreadable file", path, error.strerror or str(error), attempt) from error
    return checked(similarity, owner, file=path)


def _members(file: BinaryIO, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        archive = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, NotImplementedError, zipfile.BadZipFile) as error:
        why = "it is neither a zip archive nor an array" if "pickle" in str(error) else str(error)
        raise DataError("not an .npz archive", path, why, _SAVE) from error
    if isinstance(archive, np.ndarray):
        raise DataError("not an .npz archive", path, "it is one bare array (.npy)", _SAVE)
    with archive:
        if "similarity" not in archive.files:
            raise DataError("no key similarity", path, f"found {_listed(archive.files) or 'no key at all'}", _SAVE)
        owner = _member(archive, "text_to_video", path) if "text_to_video" in archive.files else None
        return _member(archive, "similarity", path), owner


def _member(archive: Any, key: str, path: Path) -> np.ndarray:
    try:
        return archive[key]
    except MemoryError as error:
        raise MemoryShortage("out of memory", path, f"{key}: {error}") from error
    # RuntimeError: an encrypted member; the others: damaged, cut off, or pickled objects.
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # NumPy's advice, to allow pickles, would run whatever the file holds.
        why = "it holds Python objects (pickled), expected numbers" if "pickle" in str(error) else str(error)
        raise DataError(f"unreadable {key}", path, why, _SAVE) from error


def _checked_index(index: Any, shape: tuple[int, ...], file: object) -> np.ndarray:
    texts, videos = shape
    if index is None:
        if texts != videos:
            why = f"{texts} texts × {videos} videos without text_to_video; only a square matrix has a diagonal"
            raise DataError("whose text is whose is not known", file, why, _SAVE)
        return np.arange(texts)
    index = np.asarray(index)
    if index.dtype.kind not in "iu":
        raise DataError(
            "wrong text_to_video", file, f"found {index.dtype}, expected integers", "text_to_video.astype(int)"
        )
    if index.shape != (texts,):
        given = "×".join(map(str, index.shape)) or "a single number"
        raise DataError("wrong text_to_video", file, f"found shape {given}, expected {texts}, one for each row")
    wrong = np.flatnonzero((index < 0) | (index >= videos))
    if len(wrong):
        why = f"{index[wrong[0]]} for text {wrong[0]}, expected 0 to {videos - 1}"
        raise DataError(
            "wrong text_to_video", file, why + f" ({len(wrong)} of {texts} are out of range)" * (len(wrong) > 1)
        )
    return index.astype(np.int64, copy=False)


def _refuse(
    similarity: np.ndarray, wrong: Callable[[np.ndarray], np.ndarray], what: str, file: object, attempt: str
) -> None:
    texts, videos = similarity.shape
    of_row, of_column = np.zeros(texts, np.int64), np.zeros(videos, np.int64)
    for rows in blocks(texts, videos):
        lacking = wrong(similarity[rows])
        of_row[rows] = lacking.sum(axis=1)
        of_column += lacking.sum(axis=0)
    if count := int(of_row.sum()):
        where = f"in {_places('row', of_row, videos)} and {_places('column', of_column, texts)}; rows are texts, from 0"
        raise NonFiniteError(what, file, f"{count} of {texts * videos} scores, {where}", attempt)


def _places(name: str, counts: np.ndarray, length: int) -> str:
    """Which lines hold what is refused, for example "2 columns (3, 7; wholly 7)"."""
    lines, whole = np.flatnonzero(counts), np.flatnonzero(counts == length)
    wholly = f"; wholly {_listed(whole)}" if len(whole) else ""
    return f"{len(lines)} {name}{'s' * (len(lines) > 1)} ({_listed(lines)}{wholly})"


def _listed(names: Sequence[Any] | np.ndarray) -> str:
    return ", ".join(map(str, names[:_SHOWN])) + ", …" * (len(names) > _SHOWN)
