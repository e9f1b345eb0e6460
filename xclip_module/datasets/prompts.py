"""Sentences for class names: our own sets in data/prompts/, or the user's by path."""

import csv
from collections.abc import Sequence
from pathlib import Path

from xclip_module.errors import DataError

_SHIPPED = Path(__file__).parents[2] / "data" / "prompts"
DEFAULT = "clinical"
# Sentences that fit any picture are no set of prompts for classes.
_BACKGROUND = "background"


def prompt_file(name: str) -> Path:
    """The csv of a set: a path, or the name of a shipped one (empty = clinical).

    >>> prompt_file("class_names").name
    'class_names.csv'
    """
    path = Path(name or DEFAULT)
    return _SHIPPED / f"{path}.csv" if path.parts == (path.stem,) else path


def prompt_sets(names: Sequence[str]) -> dict[str, Path]:
    """Name -> csv of each set; "all" = every shipped one."""
    if "all" in names:
        shipped = sorted(path.stem for path in _SHIPPED.glob("*.csv") if path.stem != _BACKGROUND)
        names = [*shipped, *(name for name in names if name != "all")]
    stems = [Path(name).stem for name in dict.fromkeys(names)]
    return {
        # Two files of one name keep their paths.
        stem if stems.count(stem) == 1 else name: prompt_file(name)
        for name, stem in zip(dict.fromkeys(names), stems, strict=True)
    }


def read_prompts(path: Path, names: Sequence[str]) -> dict[str, str]:
    """One sentence per class name from a csv with columns query,text.

    Raises DataError naming the missing classes, or the empty sentence.
    """
    rows = _rows(path, ("query", "text"))
    texts = {row["query"]: row["text"] for row in rows}
    if len(texts) < len(rows):
        raise DataError("two sentences for one class", path, "expected one line a class", f"sort {path} | uniq -d")
    if missing := [name for name in names if not texts.get(name)]:
        raise DataError("prompts without a sentence", path, f"missing {', '.join(missing)}")
    return {name: texts[name] for name in names}


def read_background(name: str) -> tuple[str, ...]:
    """The sentences of a csv with a column text; "ours" = the shipped ones. Raises DataError when there is none."""
    path = prompt_file(_BACKGROUND if name == "ours" else name)
    texts = tuple(row["text"] for row in _rows(path, ("text",)) if row["text"])
    if not texts:
        raise DataError("no background sentence", path, "expected a csv with a column text")
    return texts


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a csv. Not by pandas: a comma too many in every row would shift its columns in silence."""
    expected = f"expected a csv with columns {','.join(columns)}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        shown = f"shipped are {', '.join(sorted(file.stem for file in _SHIPPED.glob('*.csv')))}"
        raise DataError("unreadable prompts", path, f"{error}; {expected}; {shown}", f"head {path}") from error
    if lacking := [name for name in columns if name not in (reader.fieldnames or ())]:
        raise DataError("unreadable prompts", path, f"no column {', '.join(lacking)}; {expected}", f"head {path}")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            fields = f"other than {len(reader.fieldnames or ())} fields; put a sentence with commas in double quotes"
            raise DataError("unreadable prompts", f"{path}, row {number}", fields, f"head {path}")
    return [{name: row[name].strip() for name in columns} for row in rows]
