"""Sentences for class names: our own sets in data/prompts/, or the user's by path."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

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
    return path if path.suffix else _SHIPPED / f"{path.name}.csv"


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
    table = _table(path, ("query", "text"))
    texts = dict(zip(table["query"], table["text"], strict=True))
    if missing := [name for name in names if not texts.get(name)]:
        raise DataError("prompts without a sentence", path, f"missing {', '.join(missing)}")
    return {name: texts[name] for name in names}


def read_background(name: str) -> tuple[str, ...]:
    """The sentences of a csv with a column text; "ours" = the shipped ones. Raises DataError when there is none."""
    path = prompt_file(_BACKGROUND if name == "ours" else name)
    texts = tuple(text for text in _table(path, ("text",))["text"] if text)
    if not texts:
        raise DataError("no background sentence", path, "expected a csv with a column text")
    return texts


def _table(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    expected = f"expected a csv with columns {','.join(columns)}"
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        return pd.DataFrame({column: table[column].str.strip() for column in columns})
    except KeyError as error:
        raise DataError("unreadable prompts", path, f"no column {error}; {expected}") from error
    except (OSError, ValueError) as error:
        shown = f"shipped are {', '.join(sorted(file.stem for file in _SHIPPED.glob('*.csv')))}"
        raise DataError("unreadable prompts", path, f"{error}; {expected}; {shown}") from error
