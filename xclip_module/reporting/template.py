"""Pages and Markdown from the templates beside this file; foreign text in them is nothing but text."""

import base64
import re
from pathlib import Path
from typing import Any, NamedTuple

from xclip_module.reporting.chart import Chart, clock

TEMPLATES = Path(__file__).with_name("templates")


class Card(NamedTuple):
    """source: a data address, "" = no picture.  title, words: below it.  is_marked: stands out among the others."""

    source: str
    title: str
    words: tuple[str, ...]
    is_marked: bool = False


def render(template: Path, **values: Any) -> str:
    """A template as text, which may extend and import those of TEMPLATES.

    Everything put into a page (.html) is escaped; Markdown (.md) says `plain` where text is not ours.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, TEMPLATES]),
        autoescape=jinja2.select_autoescape(["html"], default=False),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clock": clock, "plain": plain, "fraction": fraction}
    return environment.get_template(template.name).render(**values)


def plain(text: object) -> str:
    """Foreign text that Markdown reads as nothing but text.

    >>> print(plain("a_b | <i>"))
    a\\_b \\| &lt;i>
    """
    return re.sub(r"([\\|`*_\[\]])", r"\\\1", " ".join(str(text).split())).replace("<", "&lt;")


def fraction(value: float | None, *, is_signed: bool = False) -> str:
    """A number as Markdown tables have it.

    >>> fraction(0.5), fraction(-0.25, is_signed=True), fraction(None)
    ('0.500', '−0.250', '–')
    """
    return "–" if value is None else f"{value:+.3f}".replace("-", "−") if is_signed else f"{value:.3f}"


def embed(chart: Chart) -> dict[str, Any]:
    """What the page needs of a chart: a data address and the files beside the page that hold its numbers.

    As an <img>, not inline: ids of several drawings would clash, and a browser runs nothing inside an image.
    """
    data = base64.b64encode(chart.svg).decode()
    return {"src": f"data:image/svg+xml;base64,{data}", "title": chart.title, "files": list(chart.csv)}


def card(thumbnail: bytes, title: str, *words: str, is_marked: bool = False) -> Card:
    """A card; thumbnail: a JPEG file, empty = there is none.

    >>> card(b"", "video7", "score 0.31")
    Card(source='', title='video7', words=('score 0.31',), is_marked=False)
    """
    source = f"data:image/jpeg;base64,{base64.b64encode(thumbnail).decode()}" if thumbnail else ""
    return Card(source, title, words, is_marked)
