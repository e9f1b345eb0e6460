"""A drawing with the numbers behind it, as files that are the same whenever the numbers are."""

from __future__ import annotations

import csv
import io
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    # The texts below are asked for by tables too, which draw nothing.
    from matplotlib.figure import Figure

# Text stays text (sharp, selectable, small), ids come from the content, and neither date nor version is written:
# two runs with equal numbers leave equal files.
_SVG: Any = {"svg.fonttype": "none", "svg.hashsalt": "xclip", "svg.image_inline": True}
_NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


class Chart(NamedTuple):
    """name: of its file, without suffix.  title: what it shows, for those who see it not.  csv: file name -> text."""

    name: str
    title: str
    svg: bytes
    csv: dict[str, str]


def chart_of(name: str, title: str, figure: Figure, tables: Mapping[str, str]) -> Chart:
    """The figure with its numbers; tables: what stands between name and ".csv" -> text.

    A name with folders, as of one's own recordings, keeps them: two never become one.
    """
    return Chart(name, title, svg_bytes(figure), {f"{name}{suffix}.csv": text for suffix, text in tables.items()})


def svg_bytes(figure: Figure) -> bytes:
    """The figure as an SVG document without date, version or random ids."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with matplotlib.rc_context(_SVG), warnings.catch_warnings():
        # The reader's fonts draw the text, ours only measure it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        FigureCanvasSVG(figure)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata=_NO_METADATA)
    return file.getvalue()


def csv_text(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV table; numbers in six significant digits, None as an empty cell.

    >>> csv_text(["name", "value"], [["a, b", 1 / 3], ["c", None]])
    'name,value\\n"a, b",0.333333\\nc,\\n'
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    return file.getvalue()


def clock(seconds: float) -> str:
    """mm:ss, rounded to the second; minutes go on beyond 59.

    >>> clock(75.4), clock(3725)
    ('01:15', '62:05')
    """
    whole = int(seconds + 0.5)
    return f"{whole // 60:02d}:{whole % 60:02d}"


def label_lines(text: str, width: int, *, lines: int = 2) -> str:
    """The text broken into at most `lines` lines of `width` characters, the rest as "…".

    A dollar sign is escaped: matplotlib would read a pair of them as a formula.

    >>> label_lines("the hook peels the gallbladder off the liver", 16)
    'the hook peels\\nthe gallbladder…'
    """
    printable = "".join(letter for letter in " ".join(text.split()) if letter.isprintable())  # XML forbids the others
    parts = textwrap.wrap(printable, width) or [""]
    if len(parts) > lines:
        rest = " ".join(parts[lines - 1 :])
        parts = [*parts[: lines - 1], rest[: width - 1] + "…"]
    return "\n".join(parts).replace("$", r"\$")
