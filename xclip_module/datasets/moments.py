"""Query and moment lists for any folder of videos, and one's own recordings without annotations."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from xclip_module.config import DataConfig
from xclip_module.datasets.file_tree import VIDEO_SUFFIXES
from xclip_module.errors import ConfigError, DataError
from xclip_module.interface import Corpus, Missing, Query, Segment, Video, split_hash
from xclip_module.run.json_lines import read_json_lines

# The column names that the thesis' own files use, first ours.
_COLUMNS = {
    "video": ("video", "video_id", "vid"),
    "query": ("query", "text"),
    "start": ("start_time", "start_frame"),
    "end": ("end_time", "end_frame"),
}

# Seconds by which a list's lengths and moments may miss the file's.
_TOLERANCE = 1.0


class Entry(NamedTuple):
    """One line of a list: segments None = not annotated, empty = annotated as absent; seconds 0 = length unknown.

    split: "train", "val" or "test" where the list has splits, else "all".
    """

    video: str
    query: str
    segments: tuple[Segment, ...] | None
    seconds: float
    split: str


def load_moments(data: DataConfig) -> Corpus:
    """A .csv of triplets or a QVHighlights-style .jsonl, over the videos of a folder.

    csv: columns video|video_id, query|text, start_time|start_frame, end_time|end_frame, optional fps (needed for
    frames). jsonl: vid, query, duration, relevant_windows [[start, end], …] in seconds. Both may name each line's split
    (train, val, test), without which nothing can be trained.
    Raises DataError with file and line for what cannot be read, and for listed videos that are not there.
    """
    if not data.annotations:
        raise ConfigError("data.name=moments needs a list", attempt="--data.annotations=moments.csv (or .jsonl)")
    path, root = Path(data.annotations), Path(data.root or ".")
    entries = read_entries(path)
    names = list(dict.fromkeys(entry.video for entry in entries))
    seconds, last, split_of = _lengths(entries, path), _last_moments(entries), _splits(entries, path)
    files = _find(names, root)
    missing = tuple(name for name in names if name not in files)
    if missing and not data.skip_unreadable:
        shown = ", ".join(missing[:5]) + (" …" if len(missing) > 5 else "")
        raise DataError(f"{len(missing)} listed videos missing", root, shown, "--data.root=FOLDER that holds them")
    truth: dict[str, dict[str, tuple[Segment, ...]]] = {name: {} for name in names}
    for entry in entries:
        if entry.segments is not None:
            # One line a moment: a query that happens twice stands on two lines.
            earlier = truth[entry.video].get(entry.query, ())
            truth[entry.video][entry.query] = tuple(sorted({*earlier, *entry.segments}))
    videos = tuple(
        Video(name, files[name], split_of[name], seconds.get(name, 0.0), _TOLERANCE, last.get(name, 0.0))
        for name in names
        if name in files
    )
    queries = tuple(Query(text, text, "free") for text in dict.fromkeys(entry.query for entry in entries))
    ids = {split: tuple(name for name in names if split_of[name] == split) for split in sorted(set(split_of.values()))}
    protocol = f"{path.name}, {'all videos' if 'all' in ids else '/'.join(ids)}, split {split_hash(ids)}"
    gaps = tuple(Missing(name, split_of[name], "no video") for name in missing)
    return Corpus("moments", videos, queries, truth, protocol, gaps)


def _splits(entries: Sequence[Entry], path: Path) -> dict[str, str]:
    """The split of each video: all lines name one, or none does, and a video is in one only."""
    split_of: dict[str, str] = {}
    for entry in entries:
        if split_of.setdefault(entry.video, entry.split) != entry.split:
            both = f"{entry.video} is {split_of[entry.video]} and {entry.split}"
            raise DataError("one video in two splits", path, both, "mend its lines")
    if "all" in split_of.values() and len(set(split_of.values())) > 1:
        without = next(video for video, split in split_of.items() if split == "all")
        raise DataError("a split is missing", path, f"{without} has none, others have", "name train, val or test")
    return split_of


def _lengths(entries: Sequence[Entry], path: Path) -> dict[str, float]:
    """The length in seconds of each video whose length the list knows."""
    seconds: dict[str, float] = {}
    for entry in entries:
        length = seconds.setdefault(entry.video, entry.seconds) if entry.seconds else 0.0
        if abs(length - entry.seconds) > _TOLERANCE:
            both = f"{entry.video} lasts {length:g} s and {entry.seconds:g} s"
            raise DataError("two lengths of one video", path, both, "mend its duration")
    return seconds


def _last_moments(entries: Sequence[Entry]) -> dict[str, float]:
    """End in seconds of the last moment of each video."""
    last: dict[str, float] = {}
    for entry in entries:
        ends = [end for _, end in entry.segments or ()]
        last[entry.video] = max([last.get(entry.video, 0.0), *ends])
    return last


def load_recordings(data: DataConfig) -> Corpus:
    """One video file, or every video of a folder, with the user's own sentences and no truth.

    Raises ConfigError for no sentence or an empty one, DataError for no video.
    """
    path = Path(data.video)
    if not path.exists():
        raise DataError("no such video", path, "no such file or folder", "--data.video=FILE")
    files = sorted(_video_files(path)) if path.is_dir() else [path]
    if not files:
        raise DataError("no video found", path, f"expected files such as {', '.join(sorted(VIDEO_SUFFIXES)[:4])}")
    queries = tuple(Query(text, text, "free") for text in split_queries(data.queries))
    videos = tuple(Video(str(file.relative_to(path)) if path.is_dir() else file.stem, file, "all") for file in files)
    return Corpus("video", videos, queries, {}, "own recording, no annotations")


def split_queries(text: str) -> tuple[str, ...]:
    """The sentences between semicolons.

    Raises ConfigError when there is none or one is empty.

    >>> split_queries("a clip is set; the bag is closed")
    ('a clip is set', 'the bag is closed')
    """
    queries = [" ".join(part.split()) for part in text.split(";")]
    if not all(queries):
        number = queries.index("") + 1
        where = f"sentence {number} of {len(queries)} is empty" if text.strip() else "no sentence given"
        raise ConfigError("empty query", why=where, attempt='--data.queries="the gallbladder is put in a bag"')
    return tuple(dict.fromkeys(queries))


def read_entries(path: Path) -> list[Entry]:
    """The lines of a .csv or .jsonl list, in order. Raises DataError with file and line."""
    if not path.is_file():
        raise DataError("no such annotation file", path, attempt="--data.annotations=FILE")
    entries = list(_from_jsonl(path) if path.suffix == ".jsonl" else _from_csv(path))
    if not entries:
        raise DataError("empty annotation file", path, "no line in it", "--data.annotations=FILE")
    return entries


def _video_files(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DataError("data root not found", root, "no such folder", "--data.root=FOLDER")
    return [file for file in root.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES]


def _find(names: Sequence[str], root: Path) -> dict[str, Path]:
    """The file of each listed video, named with or without its suffix, anywhere under `root`."""
    files: dict[str, Path] = {}
    wanted = set(names)
    for file in _video_files(root):
        for name in wanted & {file.name, file.stem}:
            if name in files:
                raise DataError(f"two videos named {name}", files[name], f"and {file}", "list them with their suffix")
            # Scored under both names, one video would count twice.
            if file in files.values():
                both = f"listed as {file.name} and as {file.stem}"
                raise DataError("one video under two names", file, both, "list it under one of them")
            files[name] = file
    return files


def _from_csv(path: Path) -> Iterator[Entry]:
    import pandas as pd

    try:
        # As text: pandas would make a number of a video called 001 and nothing at all of the query "nan".
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError("unreadable annotation file", path, str(error).split("\n")[0], f"head -n 3 {path}") from error
    table.columns = table.columns.str.strip()
    # A list that has times and frames is read by its times, which need no rate.
    columns = {role: next((n for n in names if n in table.columns), None) for role, names in _COLUMNS.items()}
    if absent := ["|".join(_COLUMNS[role]) for role, name in columns.items() if name is None]:
        header = f"found {', '.join(table.columns)!r}; missing {', '.join(absent)}"
        raise DataError("wrong header", f"{path}, line 1", header, "rename the columns in that line")
    for number, row in enumerate(table.to_dict("records"), start=2):
        where = f"{path}, line {number}"
        start, end = (_seconds(row, str(columns[side]), where) for side in ("start", "end"))
        split = _split(row.get("split", ""), where)
        yield _entry(row[columns["video"]], row[columns["query"]], [(start, end)], 0.0, where, split=split)


def _seconds(row: dict[str, str], column: str, where: str) -> float:
    value = _number(row[column], column, where)
    if column.endswith("_time"):
        return value
    if not row.get("fps", "").strip():
        need = f"{column} needs a column fps, or {column[:-5]}time instead"
        raise DataError("frame numbers without a rate", where, need)
    fps = _number(row["fps"], "fps", where)
    if fps <= 0:
        raise DataError("wrong fps", where, f"found {row['fps']!r}, expected frames per second")
    return value / fps


def _from_jsonl(path: Path) -> Iterator[Entry]:
    expected = "an object with vid, query, duration, relevant_windows [[start, end], …]"
    for where, row in read_json_lines(path, {"vid", "query"}, expected):
        windows = row.get("relevant_windows")
        seconds = _number(row.get("duration", 0), "duration", where)
        if seconds < 0:
            raise DataError("wrong duration", where, f"found {seconds:g}, expected seconds, or 0 for unknown")
        split = _split(row.get("split", ""), where)
        yield _entry(row["vid"], row["query"], _windows(windows, where), seconds, where, split=split)


def _split(value: Any, where: str) -> str:
    if value in ("", "all"):
        return "all"
    if value not in ("train", "val", "test"):
        raise DataError("unknown split", where, f"found {value!r}", "name train, val or test")
    return value


def _windows(windows: Any, where: str) -> list[Segment] | None:
    if windows is None:
        return None
    if not isinstance(windows, list) or not all(
        isinstance(w, list) and len(w) == 2 and not any(isinstance(end, str) for end in w) for w in windows
    ):
        raise DataError("wrong relevant_windows", where, f"found {str(windows)[:60]}, expected [[start, end], …]")
    return [(_number(a, "start", where), _number(b, "end", where)) for a, b in windows]


def _entry(video: Any, query: Any, segments: list[Segment] | None, seconds: float, where: str, *, split: str) -> Entry:
    video, query = str(video).strip(), " ".join(str(query).split())
    if not video or not query:
        raise DataError("empty query" if video else "empty video", where)
    for start, end in segments or ():
        if not 0 <= start < end:
            raise DataError("wrong moment", where, f"found {start:g} to {end:g} s, expected 0 <= start < end")
        if seconds and end > seconds + _TOLERANCE:
            raise DataError("wrong moment", where, f"it ends at {end:g} s, the video at {seconds:g} s")
    return Entry(video, query, None if segments is None else tuple(segments), seconds, split)


def _number(value: Any, name: str, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"wrong {name}", where, f"found {value!r}, expected a number")
    return number
