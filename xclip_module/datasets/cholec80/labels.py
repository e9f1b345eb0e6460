"""Cholec80's label files: one row a frame or a second, to segments in seconds."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xclip_module.config import nearest
from xclip_module.errors import DataError
from xclip_module.interface import Segment

if TYPE_CHECKING:
    import pandas as pd

# Cholec80's index is in frames of 25-fps video, whatever the rows' own rate.
LABEL_FPS = 25


class LabelTrack(NamedTuple):
    """One label file.

    segments: class name -> segments [start, end) in seconds.
    rows: how many rows it has.
    period: seconds between two rows.
    """

    segments: Mapping[str, tuple[Segment, ...]]
    rows: int
    period: float

    @property
    def seconds(self) -> float:
        """The length that the rows stand for."""
        return self.rows * self.period


def read_phases(path: Path, names: Sequence[str]) -> LabelTrack:
    """A `videoNN-phase.txt`: header `Frame<TAB>Phase`, frames 0, 1, 2 … (or 0, 25, 50 …), phases by name.

    Raises DataError with the file, the line, what was found and what was expected.
    """
    table = _read_table(path, ("Frame", "Phase"))
    period = _check_frames(path, table["Frame"])
    phases = table["Phase"].str.strip()
    unknown = ~phases.isin(names)
    if unknown.any():
        row = int(unknown.argmax())
        raise _damage("unknown phase", path, row, f"found {phases[row]!r}; {nearest(phases[row], names)}")
    values = phases.to_numpy()
    return LabelTrack({name: runs(values == name, period) for name in names}, len(table), period)


def read_tools(path: Path, names: Sequence[str]) -> LabelTrack:
    """A `videoNN-tool.txt`: header `Frame` and the tools in any order, frames 0, 25, 50 …, values 0 or 1."""
    table = _read_table(path, ("Frame", *names))
    period = _check_frames(path, table["Frame"])
    segments = {}
    for name in names:
        values = _numbers(table[name])
        is_wrong = ~np.isin(values, (0, 1))
        if is_wrong.any():
            row = int(is_wrong.argmax())
            raise _damage("wrong tool label", path, row, f"found {table[name][row]!r} for {name}, expected 0 or 1")
        segments[name] = runs(values == 1, period)
    return LabelTrack(segments, len(table), period)


def runs(is_on: np.ndarray, period: float) -> tuple[Segment, ...]:
    """Runs of True as half-open segments in seconds: rows i..j -> [i * period, (j + 1) * period).

    >>> runs(np.array([False, True, True, False, True]), 1.0)
    ((1.0, 3.0), (4.0, 5.0))
    """
    # A zero at either end, so that a run at the border has both its edges.
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_on.astype(np.int8), [0]])))
    return tuple((float(a * period), float(b * period)) for a, b in edges.reshape(-1, 2))


def _damage(what: str, path: Path, row: int, wrong: str) -> DataError:
    """The error of one row; row 0 stands on line 2, under the header."""
    return DataError(what, f"{path}, line {row + 2}", wrong, _show(path, row + 2))


def _show(path: Path, line: int) -> str:
    return f"sed -n {line}l {shlex.quote(str(path))} # and mend that line"


def _read_table(path: Path, header: Sequence[str]) -> "pd.DataFrame":
    import pandas as pd

    try:
        # As text, so that an error can show what stands in the file; some copies begin with a byte order mark.
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError("unreadable label file", path, str(error).split("\n")[0], _show(path, 1)) from error
    table.columns = table.columns.str.strip()
    if set(table.columns) != set(header):
        columns, expected = "\t".join(map(str, table.columns))[:80], "\t".join(header)
        raise _damage("wrong header", path, -1, f"found {columns!r}, expected tab-separated {expected!r}")
    if table.empty:
        raise DataError("empty label file", path, "a header and no rows", "copy it from the data set again")
    return table


def _check_frames(path: Path, column: "pd.Series") -> float:
    """Seconds between rows, after checking that frames start at 0 and rise by 1 or by 25."""
    frames = _numbers(column)
    # A single row tells no rate.
    step = frames[1] - frames[0] if len(frames) > 1 else 1
    expected = np.arange(len(frames)) * step
    if step not in (1, LABEL_FPS) or not np.array_equal(frames, expected):
        rows = np.flatnonzero(frames != expected)
        # In step with themselves, but with neither rate: the second row is the first that shows it.
        row = int(rows[0]) if len(rows) else 1
        wrong = f"found frame {column[row]!r}, expected 0, 1, 2 … or 0, {LABEL_FPS}, {2 * LABEL_FPS} …"
        raise _damage("frames out of step", path, row, wrong)
    return float(step) / LABEL_FPS


def _numbers(column: "pd.Series") -> np.ndarray:
    """A column's numbers; what is none becomes NaN, which equals nothing that is expected."""
    import pandas as pd

    return pd.to_numeric(column, errors="coerce").to_numpy()
