"""The words that models and everything else exchange.

B batch, L tokens, D embedding width, T frames of a clip, N frames, W word slots, H picture side; of a training batch
also U distinct sentences and b clips of this process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    # Records are words that every room reads; most of them do without the seconds that importing torch takes.
    from torch import Tensor


class Embeddings(NamedTuple):
    """One side of a comparison: texts or clips.

    pooled: [B, D] coarse: the sentence, the video.
    tokens: [B, L, D] fine: words, frames or patches.
    mask: [B, L] bool, True where a token is real.
    """

    pooled: Tensor
    tokens: Tensor
    mask: Tensor


class Batch(NamedTuple):
    """What one step of the optimizer learns from: the plan of all processes, and this one's share of the pixels.

    frames: [b, T, 3, H, H] uint8, the clips `start` to `start + b` of the B.
    shown: [b, T] bool, True where there is a frame; the models see a zero, which is no black picture, elsewhere.
    input_ids, mask: [U, W] the distinct sentences of all processes' samples.
    sentences: [B] int64, the row among them of each sample's own sentence.
    positives: [U, B] bool, True where a sentence holds in a clip.
    unknown: [U, B] bool, True where nobody has said whether it does: such a pair takes no part.
    names: [B] which clip, for messages ("video01 at 12.5 s").
    """

    frames: Tensor
    shown: Tensor
    start: int
    input_ids: Tensor
    mask: Tensor
    sentences: Tensor
    positives: Tensor
    unknown: Tensor
    names: tuple[str, ...]


class Picture(NamedTuple):
    """What the vision tower wants to see: side in pixels, mean and standard deviation of RGB in 0..1."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class VideoTextModel(Protocol):
    """What every family offers; all results are float32."""

    family: str
    picture: Picture
    clip_frames: int  # frames of one clip that the checkpoint takes, 0 = any number
    text_slots: int  # word slots W of `encode_text`
    vocabulary: int  # token ids that `encode_text` knows: 0 up to this
    reuses_frames: bool  # True: a clip is a function of separately encoded frames
    has_header: bool  # True: a temporal header makes the clip of its frames, not their mean
    compares_pooled: bool  # True: training ranks by the cosine of pooled text and clip, so it can choose candidates

    @property
    def protocol(self) -> str:
        """One line for the results: which arithmetic."""

    def digest(self) -> str:
        """Fingerprint of all weights: what results depend on."""

    def stored_digest(self) -> str:
        """Fingerprint of all weights on which stored features of videos depend."""

    def encode_text(self, input_ids: Tensor, mask: Tensor) -> Embeddings:
        """Texts from token ids [B, W] int64 and mask [B, W]."""

    def encode_video(self, frames: Tensor, mask: Tensor) -> Embeddings:
        """Clips from normalised pixels [B, T, 3, H, H] and mask [B, T]."""

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Frame features [N, D] of normalised pixels [N, 3, H, H]; only where `reuses_frames`."""

    def embed_clips(self, features: Tensor, mask: Tensor) -> Embeddings:
        """Clips from frame features [B, T, D] and mask [B, T]; only where `reuses_frames`."""

    def similarity(self, text: Embeddings, video: Embeddings) -> Tensor:
        """Logits [B_text, B_video]: a row is a text, always."""
