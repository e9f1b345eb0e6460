"""Small random models of every family, for tests."""

import torch
from transformers import CLIPConfig, CLIPModel, XCLIPConfig, XCLIPModel

from xclip_module.models.spec import Tower, TwoTowerSpec
from xclip_module.models.two_tower import TwoTower

TINY = TwoTowerSpec(
    vision=Tower(width=64, layers=2, heads=1, hidden=256),
    text=Tower(width=64, layers=2, heads=1, hidden=256),
    embed=64,
    image=32,
    patch=16,
    context=16,
    vocabulary=100,
    words=10,
    frames=5,
)


def tiny_two_tower(**changes):
    """A random two-tower model whose every parameter differs from its start."""
    torch.manual_seed(0)
    model = TwoTower(TINY._replace(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def tiny_hf_clip():
    """A random Hugging Face CLIP."""
    torch.manual_seed(1)
    text = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
    vision = {**text, "image_size": 32, "patch_size": 16}
    ids = {"bos_token_id": 98, "eos_token_id": 99, "pad_token_id": 0}
    config = CLIPConfig(
        text_config={**text, **ids, "vocab_size": 100, "max_position_embeddings": 16},
        vision_config=vision,
        projection_dim=64,
    )
    return CLIPModel(config).eval()


def tiny_ms_xclip(vocabulary=100):
    """A random microsoft X-CLIP of 4 frames; every parameter drawn, so that nothing starts at zero or one."""
    torch.manual_seed(2)
    shared = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": 0}
    config = XCLIPConfig(
        text_config={**shared, **ids, "vocab_size": vocabulary, "max_position_embeddings": 77},
        vision_config={
            **shared,
            "image_size": 32,
            "patch_size": 16,
            "num_frames": 4,
            "mit_hidden_size": 64,
            "mit_intermediate_size": 128,
            "mit_num_hidden_layers": 1,
            "mit_num_attention_heads": 2,
        },
        projection_dim=64,
        prompt_layers=2,
        prompt_num_attention_heads=2,
    )
    model = XCLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def texts(count, slots, *, vocabulary=100, seed=0):
    """Random token ids [count, slots] with start, end and zero padding of varying length, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocabulary - 2, (count, slots), generator=generator)
    lengths = torch.randint(3, slots + 1, (count,), generator=generator)
    mask = torch.arange(slots)[None] < lengths[:, None]
    ids[:, 0] = vocabulary - 2
    ids[torch.arange(count), lengths - 1] = vocabulary - 1
    return ids * mask, mask


def clips(count, frames, *, side=32, seed=0, is_ragged=False):
    """Random pixels [count, frames, 3, side, side], zero in empty slots, and the mask."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, frames + 1, (count,), generator=generator) if is_ragged else torch.full((count,), frames)
    mask = torch.arange(frames)[None] < lengths[:, None]
    return torch.randn(count, frames, 3, side, side, generator=generator) * mask[..., None, None, None], mask
