"""Markdown of which foreign text is nothing but text."""

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from xclip_module.reporting.tables import Table


def plain(text: str) -> str:
    """Foreign text that Markdown reads as nothing but text.

    >>> print(plain("a_b | <i>"))
    a\\_b \\| &lt;i>
    """
    return re.sub(r"([\\|`*_\[\]])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")


def listed(facts: Mapping[str, str]) -> str:
    """A line per fact, name and text."""
    return "\n".join(f"- {plain(name)}: {plain(text)}" for name, text in facts.items())


def image(path: str) -> str:
    """A picture; path: relative to the run folder."""
    return f"![{plain(path)}]({quote(path)})"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [f"| {' | '.join(cells)} |" for cells in [head, *rows]]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def of_table(table: Table) -> str:
    """A table of the page with its caption below it; what stands in small print there stands in brackets here."""
    head = [plain(table.first), *(plain(_with_note(column.head, column.note)) for column in table.columns)]
    rows = [
        [
            plain(_with_note(row.label, row.note)),
            *(plain(_with_note(cell.text, " ".join(cell.below))) for cell in row.cells),
        ]
        for row in table.rows
    ]
    return f"{grid(head, rows)}\n\n{plain(table.caption)}."


def left_out(skipped: Mapping[str, str]) -> str:
    """The videos that were left out, and why."""
    return f"**{len(skipped)} videos left out:**\n\n{listed(skipped)}"


def _with_note(text: str, note: str) -> str:
    return f"{text} ({note})" if note else text
