"""`ms-xclip` (Ni et al. 2022): the adapter over transformers' XCLIPModel.

B texts or clips, V videos, T frames, P patches of a frame, W word slots, D width, H picture side.
"""

from typing import Any

import torch
from torch import Tensor, nn

from xclip_module.interface import Embeddings, Picture
from xclip_module.models.files import weights_digest

# Elements of the conditioned texts [V, B, D] that exist at a time.
_BLOCK = 30_000_000


class MicrosoftXClip(nn.Module):
    """Expanding Language-Image Pretrained Models (Ni et al. 2022), equal to `XCLIPModel.forward`.

    The text is conditioned on the clip, so the logits are not the cosine of two fixed embeddings: `tokens` of a clip
    are its projected patches, averaged over frames, from which `similarity` makes each clip's own version of a text.
    Frames exchange messages inside the encoder, so a clip's features cannot be put together from stored frames.
    Works by sub-modules: `get_video_features` fails in transformers 4.57 and the combined processor drops videos there.
    """

    def __init__(self, model: Any, picture: Picture):
        """Wraps a loaded `XCLIPModel`; `picture` is the preprocessing of its checkpoint."""
        super().__init__()
        self.model = model
        self.family = "ms-xclip"
        self.picture = picture
        self.clip_frames = model.config.vision_config.num_frames
        self.text_slots = model.config.text_config.max_position_embeddings
        self.vocabulary = model.config.text_config.vocab_size
        self.reuses_frames = False
        self.has_header = True
        # Of the unconditioned text: close to the score, whose text is that plus a small learned share of the clip.
        self.compares_pooled = True

    @property
    def protocol(self) -> str:
        """One line for the results."""
        return f"ms-xclip (Ni et al. 2022), {self.clip_frames} frames, text conditioned on the clip"

    def digest(self) -> str:
        """Of the whole state dict."""
        return weights_digest(self.model)

    def stored_digest(self) -> str:
        """Of the whole model: a clip's embedding goes through most of it."""
        return self.digest()

    def encode_text(self, input_ids: Tensor, mask: Tensor) -> Embeddings:
        """Unconditioned texts from ids [B, W]: pooled [B, D], tokens [B, W, D]; padding has no effect (causal)."""
        outputs = self.model.text_model(input_ids=input_ids)
        with _float32(input_ids):
            pooled = self.model.text_projection(outputs[1].float())
            words = self.model.text_projection(outputs[0].float())
        return Embeddings(pooled, words, mask.bool())

    def encode_video(self, frames: Tensor, mask: Tensor) -> Embeddings:
        """Clips from normalised pixels [B, T, 3, H, H]: pooled [B, D], tokens [B, P, D].

        Raises ValueError when T is not the checkpoint's or a frame is masked: the model knows neither.
        """
        b, t = mask.shape
        if t != self.clip_frames or not mask.all():
            raise ValueError(
                f"clips of {t} frames ({int(mask.sum())} of {b * t} real), this checkpoint takes exactly "
                f"{self.clip_frames} real frames: sample {self.clip_frames} per clip (data.frames_per_clip=0 does)"
            )
        outputs = self.model.vision_model(pixel_values=frames.flatten(0, 1))
        with _float32(frames):
            states = self.model.visual_projection(outputs[1].float()).unflatten(0, (b, t))  # [B, T, D]
            # Without the class token, which is the frame itself.
            patches = self.model.prompts_visual_layernorm(outputs[0][:, 1:].float())
            patches = (patches @ self.model.prompts_visual_projection).unflatten(0, (b, t)).mean(1)  # [B, P, D]
            # Multi-frame integration: a small transformer over the T frames, with a residual, then their mean.
            # 4.57 answers a tuple here and later versions an output object; both have the pooled video at 1.
            pooled = self.model.mit(states)[1]
        return Embeddings(pooled, patches, patches.new_ones(patches.shape[:2], dtype=torch.bool))

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Not possible in this family: raises TypeError."""
        raise TypeError("ms-xclip frames exchange messages; encode whole clips with encode_video")

    def embed_clips(self, features: Tensor, mask: Tensor) -> Embeddings:
        """Not possible in this family: raises TypeError."""
        raise TypeError("ms-xclip frames exchange messages; encode whole clips with encode_video")

    def similarity(self, text: Embeddings, video: Embeddings) -> Tensor:
        """Logits [B, V]: every text conditioned on every clip, a block of clips at a time."""
        size = max(1, _BLOCK // text.pooled.numel())
        with _float32(text.pooled):
            columns = [
                self._block(text.pooled.float(), pooled.float(), patches.float())
                for pooled, patches in zip(video.pooled.split(size), video.tokens.split(size), strict=True)
            ]
        return torch.cat(columns, dim=1)

    def _block(self, text: Tensor, video: Tensor, patches: Tensor) -> Tensor:
        texts = text.expand(len(video), -1, -1)  # [V, B, D]
        # Video-specific prompting: text + alpha * decoder(text, patches), with a learned alpha for each channel.
        texts = texts + self.model.prompts_generator(texts, patches)
        texts = texts / texts.norm(dim=-1, keepdim=True)
        video = video / video.norm(dim=-1, keepdim=True)
        return torch.einsum("vd,vbd->bv", video, self.model.logit_scale.exp() * texts)


def _float32(like: Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, enabled=False)
