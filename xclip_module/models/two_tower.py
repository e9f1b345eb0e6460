"""Frame encoder, optional temporal header, text encoder and head behind one interface: `xclip` and `clip4clip`.

B texts or clips, V videos, T frames, N frames in one pass, W word slots, D width, H picture side.
"""

from typing import Any

import torch
from torch import Tensor, nn

from xclip_module.interface import Embeddings
from xclip_module.models.files import weights_digest
from xclip_module.models.similarity import CrossEncoder, MeanPooling, MultiGrained, normalise
from xclip_module.models.spec import MMACTION2, TwoTowerSpec
from xclip_module.models.temporal import TemporalLSTM, TemporalTransformer, TransformerAdapter
from xclip_module.models.towers import FrameEncoder, TextEncoder

# ln(1 / 0.07), CLIP's own start.
_LOGIT_SCALE = 2.6593
# Clips that go through the temporal header at a time on a CPU: more would fall out of its cache.
_CPU_CLIPS = 64


class TwoTower(nn.Module):
    """X-CLIP (Ma et al. 2022) and CLIP4Clip (Luo et al. 2022) on transformers' CLIP towers.

    The towers follow the caller's autocast; header, pooling and head always compute in float32, since the head divides
    by 0.01 and multiplies by 100. The released code runs fp16 towers and a float32 head in the same places.
    MMAction2's CLIP4Clip (`spec.pooling`) is the same towers and cosine with another pooling and another transformer.
    """

    def __init__(self, spec: TwoTowerSpec, attention: str = "sdpa"):
        """Random weights of the spec's sizes; the learned matrices start as identity."""
        super().__init__()
        self.spec = spec
        self.frame_encoder = FrameEncoder(spec, attention)
        self.text_encoder = TextEncoder(spec, attention)
        self.temporal: Any = _header(spec)
        self.head = _head(spec)
        self.logit_scale = nn.Parameter(torch.tensor(_LOGIT_SCALE))
        self.family = spec.family
        self.picture = spec.picture
        self.clip_frames = spec.clip_frames
        self.text_slots = spec.words
        self.vocabulary = spec.vocabulary
        self.reuses_frames = spec.patch_frames == 1
        self.has_header = self.temporal is not None
        self.compares_pooled = spec.header != "tight"

    @property
    def protocol(self) -> str:
        """One line for the results: family, header, and what empty slots do."""
        slots = "empty slots masked (not the released arithmetic)" if self.spec.masked else "empty slots as released"
        if self.spec.pooling == MMACTION2:
            return f"{self.family} of MMAction2, {self.spec.header} adapter, mean of raw frames"
        if self.spec.family != "xclip":
            return f"{self.family}, {self.spec.header} header"
        return f"{self.family} (Ma et al. 2022), {self.spec.header} header, {slots}"

    def digest(self) -> str:
        """Of the whole state dict."""
        return weights_digest(self)

    def stored_digest(self) -> str:
        """Of the frame encoder alone where frames are stored; of the header too where clips are."""
        # Three-frame patches mix neighbours before the tower, so what is stored is the clip behind the header.
        header = [] if self.reuses_frames or self.temporal is None else [self.temporal]
        return weights_digest(self.frame_encoder, *header)

    def encode_text(self, input_ids: Tensor, mask: Tensor) -> Embeddings:
        """Raw sentence [B, D] and word features [B, W, D] from ids [B, W] int64; see `TextEncoder`."""
        return self.text_encoder(input_ids, mask)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Raw frame features [N, D] of normalised pixels [N, 3, H, H]; see `FrameEncoder`."""
        return self.frame_encoder(frames)

    def encode_video(self, frames: Tensor, mask: Tensor) -> Embeddings:
        """Clips from normalised pixels [B, T, 3, H, H] and mask [B, T]; empty slots are zero pictures."""
        return self.embed_clips(self.frame_encoder(frames), mask)

    def embed_clips(self, features: Tensor, mask: Tensor) -> Embeddings:
        """pooled [B, D] = normalised mean of the normalised header outputs; tokens [B, T, D] = `features`, raw.

        With MMAction2's pooling the header outputs are averaged as they are. Differs: its `SimpleMeanAdapter` knows no
        mask, since its sampler repeats frames of short videos; here empty slots are left out of either mean.
        Raises ValueError for a clip without a real frame, which the released code turns into NaN.
        """
        mask = mask.bool()
        if not mask.any(dim=1).all():
            raise ValueError("a clip without a real frame has no embedding; leave it out or read its video again")
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            states = features
            if self.temporal is not None:
                size = _CPU_CLIPS if features.device.type == "cpu" else len(features)
                parts = zip(features.split(size), mask.split(size), strict=True)
                states = torch.cat([self.temporal(*part) for part in parts])
            weights = mask.to(states.dtype)[..., None]
            # Of unit length every frame counts the same; among MMAction2's raw ones a longer vector counts more.
            states = states if self.spec.pooling == MMACTION2 else normalise(states)
            mean = (states * weights).sum(1) / weights.sum(1)
            # X-CLIP's frame tokens are the tower's: its header acts on the pooled video alone, in the released code.
            return Embeddings(normalise(mean), features, mask)

    def similarity(self, text: Embeddings, video: Embeddings) -> Tensor:
        """Logits [B, V], float32: row = text. Memory stays bounded whatever B and V are (without gradients)."""
        with torch.autocast(text.pooled.device.type, enabled=False):
            text = Embeddings(text.pooled.float(), text.tokens.float(), text.mask)
            video = Embeddings(video.pooled.float(), video.tokens.float(), video.mask)
            return self.head(text, video, self.logit_scale.exp())


def _header(spec: TwoTowerSpec) -> nn.Module | None:
    if spec.has_adapter:
        return TransformerAdapter(spec.embed, layers=spec.header_layers, frames=spec.frames, heads=spec.header_heads)
    if spec.header == "transformer":
        return TemporalTransformer(spec.embed, layers=spec.header_layers, context=spec.context)
    return TemporalLSTM(spec.embed) if spec.header == "lstm" else None


def _head(spec: TwoTowerSpec) -> nn.Module:
    if spec.header == "tight":
        return CrossEncoder(spec.embed, layers=spec.header_layers, context=spec.context)
    if spec.family == "xclip":
        return MultiGrained(spec.embed, words=spec.words, frames=spec.frames, masked=spec.masked)
    return MeanPooling()
