"""What the section finetune means for one kind of data."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Recipe(NamedTuple):
    """What section finetune means for one kind of data.

    values: key -> its value where the user leaves it open.
    unused: keys that say nothing about such data, and may not be set.
    contents: what the data has, for the error about such a key ("moments of long videos").
    monitors: the val numbers that there are.
    refused_losses: loss -> why it makes no sense.
    """

    values: Mapping[str, Any]
    unused: tuple[str, ...]
    contents: str
    monitors: tuple[str, ...]
    refused_losses: Mapping[str, str]
