"""Finding and reading the files in which benchmarks keep their sentences; every error names file, place and way out."""

import csv
import io
import json
import pickle
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from xclip_module.errors import DataError

Span = tuple[int, int]

# What a damaged pickle can make the reader stumble over.
_DAMAGE = (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
_KINDS = {str: "text", list: "a list", dict: "an object", (int, float): "a number"}


class Annotated(NamedTuple):
    """What the annotation files of one split say, before any video is looked for.

    pairs: (video id, sentence) in the order of the released loader.
    sources: the files that were read.
    spans: video id -> the first and last second that are looked at, where that is not the whole video.
    without_text: videos that the split's list names and its captions do not.
    """

    pairs: tuple[tuple[str, str], ...]
    sources: tuple[Path, ...]
    spans: Mapping[str, Span] = {}
    without_text: tuple[str, ...] = ()


def find_file(folder: Path, name: str) -> Path:
    """`name` in `folder`, else the only file of that name anywhere below it.

    Raises DataError where there is none, and where two lie below and none on top.
    """
    if (folder / name).is_file():
        return folder / name
    if not folder.is_dir():
        attempt = "--data.annotations=FOLDER (of the check: --annotations)"
        raise DataError("annotation folder not found", folder, "no such folder", attempt)
    below = sorted(path for path in folder.rglob(name) if path.is_file())
    if not below:
        attempt = f"find {shlex.quote(str(folder))} -name {shlex.quote(name)}"
        raise DataError("annotation file not found", folder / name, "nor in any folder below", attempt)
    if len(below) > 1:
        raise DataError(f"two files {name}", below[0], f"and {below[1]}", f"copy one of them to {folder}")
    return below[0]


def read_text(path: Path) -> str:
    """A file's text with a newline at the end of each line. Raises DataError for what is no UTF-8 text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        attempt = f"iconv -f latin1 -t utf-8 {shlex.quote(str(path))}"
        raise DataError("unreadable file", path, f"not UTF-8 text: {error}", attempt) from error
    except OSError as error:
        attempt = f"ls -l {shlex.quote(str(path))}"
        raise DataError("unreadable file", path, error.strerror or str(error), attempt) from error


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Each line that is not blank, with its place "file, line N" in front and without white space at its ends."""
    # splitlines() would also break a sentence at characters such as U+2028.
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line.strip()


def read_ids(path: Path) -> tuple[str, ...]:
    """One id a line. Raises DataError for an id that is listed twice, and for an empty list."""
    lines: dict[str, str] = {}
    for where, name in read_lines(path):
        if name in lines:
            raise DataError(f"{name} listed twice", where, f"first in {lines[name]}", "delete one of the two lines")
        lines[name] = where
    if not lines:
        raise DataError("empty list", path, "expected one video id a line", "get the file from its publisher again")
    return tuple(lines)


def read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The named columns of a comma-separated file with a header, row by row.

    Every text stays as it is: pandas, which the released loaders use, would make a number of the sentence "nan".
    Raises DataError with file and line for a missing column or value.
    """
    rows = csv.reader(io.StringIO(read_text(path)))
    try:
        header = [name.strip() for name in next(rows, [])]
        if absent := [name for name in columns if name not in header]:
            names = f"found {', '.join(header)!r}; missing {', '.join(absent)}"
            raise DataError("wrong header", f"{path}, line 1", names, "name the columns in that line")
        indices = [header.index(name) for name in columns]
        for row in rows:
            if row and len(row) != len(header):
                counts = f"found {len(row)} values, expected {len(header)}"
                attempt = 'put "…" around a text with commas'
                raise DataError("wrong line", f"{path}, line {rows.line_num}", counts, attempt)
            if row:
                yield tuple(row[index] for index in indices)
    except csv.Error as error:
        attempt = "get the file from its publisher again"
        raise DataError("unreadable table", f"{path}, line {rows.line_num}", str(error), attempt) from error


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises DataError for anything else."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        attempt = "get the file from its publisher again"
        raise DataError("not JSON", path, str(error) or "too deep", attempt) from error


def read_plain_pickle(path: Path) -> Any:
    """The dicts, lists, tuples, texts, numbers, booleans and None of a pickle file, read without running anything.

    Text that Python 2 wrote as bytes is read as UTF-8.
    Raises DataError, before anything is run, for a pickle that asks for a class or function, and for a damaged one.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8").load()
    except _Refused as error:
        request = f"{error}, and could run anything; expected only dicts, lists, texts and numbers"
        raise DataError("pickle refused", path, request, "get the file from its publisher again") from error
    except OSError as error:
        attempt = f"ls -l {shlex.quote(str(path))}"
        raise DataError("unreadable file", path, error.strerror or str(error), attempt) from error
    except (*_DAMAGE, MemoryError) as error:
        damage = f"damaged or no pickle: {error or type(error).__name__}"
        raise DataError("unreadable pickle", path, damage, "get the file from its publisher again") from error


def expect(value: Any, kind: type | tuple[type, ...], where: str) -> Any:
    """`value` if it is of a kind (text, list, object, number); else DataError with its place in the file."""
    # To Python true is also the number 1.
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError("wrong value", where, f"found {str(value)[:60]!r}, expected {_KINDS[kind]}", "mend that entry")
    return value


def entry(values: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """`values[key]`, which must be there and of a kind; DataError names the place and the keys that are there."""
    if key not in expect(values, dict, where):
        keys = f"found the keys {', '.join(map(str, values))[:80]}"
        raise DataError(f"no {key}", where, keys, f"look whether this is the right file: it should hold {key}")
    return expect(values[key], kind, f"{where}: {key}")


class _Refused(Exception):
    """The pickle asks for more than containers, text and numbers."""


class _PlainUnpickler(pickle.Unpickler):
    """Knows no class and no function, so that a pickle's call has nothing to call."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _Refused(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused("it asks for an object outside the file")
