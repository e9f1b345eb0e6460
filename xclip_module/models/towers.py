"""CLIP's two towers: features of the frames of clips, and of sentences and their words.

B clips or texts, T frames, N = B*T, W word slots, D embedding width, H picture side.
"""

import torch
from torch import Tensor, nn

from xclip_module.interface import Embeddings
from xclip_module.models.spec import TwoTowerSpec


class FrameEncoder(nn.Module):
    """Frame features: the projected class token of each frame, raw (not normalised).

    Source: CLIP (Radford et al. 2021) through transformers; X-CLIP (Ma et al. 2022) modules/module_clip.py, which also
    projects the patch tokens and then uses none of them.
    """

    def __init__(self, spec: TwoTowerSpec, attention: str = "sdpa"):
        """Random weights of the spec's sizes; `attention` is transformers' name of the kernel."""
        from transformers.models.clip.configuration_clip import CLIPVisionConfig
        from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

        super().__init__()
        self.patch_frames = spec.patch_frames
        config = CLIPVisionConfig(
            **spec.vision.settings,
            projection_dim=spec.embed,
            num_channels=3 * spec.patch_frames,
            image_size=spec.image,
            patch_size=spec.patch,
        )
        config._attn_implementation = attention
        self.tower = CLIPVisionModelWithProjection(config)

    def forward(self, frames: Tensor) -> Tensor:
        """[N, 3, H, H] or [B, T, 3, H, H] normalised pixels -> [N, D] or [B, T, D]."""
        # Neighbours are those of the clip, so frames of clips [B, T, …] must not be flattened before.
        if self.patch_frames == 3:
            frames = _with_neighbours(frames)
        flat = frames.flatten(0, -4)  # [N, 3 or 9, H, H]
        features = self.tower(pixel_values=flat).image_embeds.float()
        return features.unflatten(0, frames.shape[:-3])


class TextEncoder(nn.Module):
    """Sentence feature = projected state of the end token; word features = projected states of all W slots.

    Raw (not normalised); padding slots are encoded like any other, as in the released code. The attention is causal,
    so what fills the padding never reaches the sentence feature.
    Source: CLIP (Radford et al. 2021) through transformers; X-CLIP (Ma et al. 2022) modules/modeling_xclip.py.
    """

    def __init__(self, spec: TwoTowerSpec, attention: str = "sdpa"):
        """Random weights of the spec's sizes; `attention` is transformers' name of the kernel."""
        from transformers.models.clip.configuration_clip import CLIPTextConfig
        from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection

        super().__init__()
        self.context = spec.context
        config = CLIPTextConfig(
            **spec.text.settings,
            vocab_size=spec.vocabulary,
            projection_dim=spec.embed,
            max_position_embeddings=spec.context,
            # CLIP's two special tokens are its last two.
            bos_token_id=spec.vocabulary - 2,
            eos_token_id=spec.vocabulary - 1,
            pad_token_id=0,
        )
        config._attn_implementation = attention
        self.tower = CLIPTextModelWithProjection(config)

    def forward(self, input_ids: Tensor, mask: Tensor) -> Embeddings:
        """[B, W] int64 ids and mask -> pooled [B, D], tokens [B, W, D], mask [B, W].

        The end token is the largest id, its first place, as in CLIP. Raises ValueError when W exceeds the context.
        """
        if input_ids.shape[1] > self.context:
            raise ValueError(f"input_ids has {input_ids.shape[1]} slots, this text tower takes at most {self.context}")
        states = self.tower(input_ids=input_ids).last_hidden_state
        words = self.tower.text_projection(states).float()  # [B, W, D]
        end = input_ids.argmax(dim=1)
        sentence = words[torch.arange(len(words), device=words.device), end]
        return Embeddings(sentence, words, mask.bool())


def _with_neighbours(frames: Tensor) -> Tensor:
    """Previous, own and next frame in the channels, zeros outside the clip: [B, T, 3, H, H] -> [B, T, 9, H, H].

    A convolution over these is CLIP4Clip's Conv3d of kernel (3, p, p), stride (1, p, p), padding (1, 0, 0).
    """
    empty = torch.zeros_like(frames[:, :1])
    before = torch.cat([empty, frames[:, :-1]], dim=1)
    after = torch.cat([frames[:, 1:], empty], dim=1)
    return torch.cat([before, frames, after], dim=2)
