"""Video-text models behind one interface: `xclip` (Ma et al. 2022), `clip4clip`, `ms-xclip` (Ni et al. 2022)."""

from xclip_module.models.saving import save_model
from xclip_module.models.tokenizer import load_tokenizer
from xclip_module.models.weights import load_checkpoint, load_untrained

__all__ = ["load_checkpoint", "load_tokenizer", "load_untrained", "save_model"]
