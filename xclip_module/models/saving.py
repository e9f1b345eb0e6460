"""A model as a folder that `load_checkpoint` reads: config.json, model.safetensors, tokenizer.json."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from xclip_module.models.ms_xclip import MicrosoftXClip
from xclip_module.models.official import to_official
from xclip_module.models.spec import TwoTowerSpec
from xclip_module.models.tokenizer import ClipTokenizer
from xclip_module.models.two_tower import TwoTower
from xclip_module.run import storage

FORMAT = "xclip_module.two_tower"


def save_model(
    model: TwoTower | MicrosoftXClip, folder: Path, *, tokenizer: ClipTokenizer | None = None, is_half: bool = False
) -> None:
    """Writes the weights, what describes them, and the tokenizer that goes with them, each atomically, weights last.

    xclip and clip4clip bear the released names, of MMAction2's CLIP4Clip too; what its tensors do not tell (pooling,
    heads of the adapter, colours) stands in config.json, so keep the two together. ms-xclip becomes a Hugging Face
    folder. is_half: float16, half the size; reading gives float32 again, rounded.
    """
    if isinstance(model, MicrosoftXClip):
        state, picture = model.model.state_dict(), model.picture
        config = {**json.loads(model.model.config.to_json_string()), "model_type": "xclip"}
        preprocessor = {"image_mean": list(picture.mean), "image_std": list(picture.std), "size": picture.size}
        storage.write_json(folder / "preprocessor_config.json", preprocessor)
    else:
        state = to_official(model.state_dict())
        config = {"format": FORMAT, "spec": spec_to_json(model.spec)}
    storage.write_json(folder / "config.json", config)
    if tokenizer is not None:
        storage.write_text(folder / "tokenizer.json", tokenizer.tokenizer.to_str())
    tensors = {name: _stored(tensor, is_half) for name, tensor in state.items()}
    # transformers refuses a file that does not name its framework.
    storage.write_bytes(folder / "model.safetensors", save(tensors, metadata={"format": "pt"}))


def spec_to_json(spec: TwoTowerSpec) -> dict[str, Any]:
    """The spec as nested primitives; the inverse is what `load_checkpoint` does with a folder's config.json."""
    return {**spec._asdict(), "vision": spec.vision._asdict(), "text": spec.text._asdict()}


def _stored(tensor: Tensor, is_half: bool) -> Tensor:
    kept = tensor.detach().cpu()
    return kept.to(torch.float16 if is_half and kept.is_floating_point() else kept.dtype).contiguous()
