"""Small pictures of videos with a few words below each, for the page."""

import base64
from typing import NamedTuple


class Card(NamedTuple):
    """source: a data address, "" = no picture.  title, words: below it.  is_marked: stands out among the others."""

    source: str
    title: str
    words: tuple[str, ...]
    is_marked: bool = False


def card(thumbnail: bytes, title: str, *words: str, is_marked: bool = False) -> Card:
    """A card; thumbnail: a JPEG file, empty = there is none.

    >>> card(b"", "video7", "score 0.31")
    Card(source='', title='video7', words=('score 0.31',), is_marked=False)
    """
    source = f"data:image/jpeg;base64,{base64.b64encode(thumbnail).decode()}" if thumbnail else ""
    return Card(source, title, words, is_marked)
