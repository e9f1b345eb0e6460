"""CLIP's vision tower over the frames of clips.

B clips, T frames, N = B*T, D embedding width, H picture side.
"""

import torch
from torch import Tensor, nn

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


def _with_neighbours(frames: Tensor) -> Tensor:
    """Previous, own and next frame in the channels, zeros outside the clip: [B, T, 3, H, H] -> [B, T, 9, H, H].

    A convolution over these is CLIP4Clip's Conv3d of kernel (3, p, p), stride (1, p, p), padding (1, 0, 0).
    """
    empty = torch.zeros_like(frames[:, :1])
    before = torch.cat([empty, frames[:, :-1]], dim=1)
    after = torch.cat([frames[:, 1:], empty], dim=1)
    return torch.cat([before, frames, after], dim=2)
