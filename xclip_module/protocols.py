"""Named recipes: a few values each, with their source. The user's file and the command line still win over them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from xclip_module.config import nearest
from xclip_module.errors import ConfigError


class Protocol(NamedTuple):
    """A recipe's values by dotted key, and where they come from."""

    source: str
    values: Mapping[str, Any]


PROTOCOLS = {
    "cholec80_xclip_vitb32": Protocol(
        "ours: X-CLIP (Ma et al. 2022) scoring on OpenAI's CLIP ViT-B/32, split as in Funke et al.",
        {
            "data.name": "cholec80",
            "data.splits": "32/8/40",
            "data.clip_seconds": 16.0,
            "data.frames_per_clip": 16,
            "data.stride_seconds": 4.0,
            "model.weights": "openai/clip-vit-base-patch32",
        },
    ),
    "cholec80_msxclip_vitb32": Protocol(
        "the thesis baseline's weights (Ni et al. 2022), with the 8 frames that they take instead of 16",
        {
            "data.name": "cholec80",
            "data.splits": "32/8/40",
            "data.clip_seconds": 16.0,
            "data.frames_per_clip": 8,
            "data.stride_seconds": 4.0,
            "model.weights": "microsoft/xclip-base-patch32",
        },
    ),
}


def find_protocol(name: str) -> Mapping[str, Any]:
    """The values of a protocol; none for an empty name. Raises ConfigError naming the nearest."""
    if not name:
        return {}
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name}", why=nearest(name, PROTOCOLS))
    return PROTOCOLS[name].values
