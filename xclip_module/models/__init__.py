"""Video-text models behind one interface: `xclip` (Ma et al. 2022), `clip4clip`, `ms-xclip` (Ni et al. 2022)."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xclip_module.models.saving import save_model
    from xclip_module.models.tokenizer import load_tokenizer
    from xclip_module.models.weights import load_checkpoint, load_untrained

__all__ = ["load_checkpoint", "load_tokenizer", "load_untrained", "save_model"]

# Each name brings its module in on first use: torch takes seconds to import, and `models.hub` does without.
_MODULES = {
    "load_checkpoint": "weights",
    "load_tokenizer": "tokenizer",
    "load_untrained": "weights",
    "save_model": "saving",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
