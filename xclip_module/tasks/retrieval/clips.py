"""The one clip of every video: which frames it has, and how it is encoded and made of what is stored.

C videos, T frames of a stored clip, F frame slots, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from xclip_module.config import DataConfig
from xclip_module.datasets.catalogue import choose_sampling
from xclip_module.errors import ConfigError
from xclip_module.features.encoding import to_pixels
from xclip_module.features.video_pass import Arrays, Encode
from xclip_module.interface import Embeddings, PictureReader, Video, VideoTextModel
from xclip_module.sections import AUTO
from xclip_module.tasks.encode import frame_encoder, in_precision
from xclip_module.video.frame_choice import FrameChoice

_CLIPS_PER_PASS = 512


class ClipEncoder(NamedTuple):
    """What stored clips depend on; precision: of the towers, as chosen for the device."""

    model: VideoTextModel
    choice: FrameChoice
    precision: str

    @property
    def in_words(self) -> str:
        """One line on the weights."""
        return f"{self.model.protocol}; frames: {self.choice.protocol}"

    def encode(self, device: torch.device) -> Encode:
        """What turns the chosen frames of a video into the arrays that the store keeps."""
        model, slots = self.model, self.choice.frames

        def clip(batches: Iterator[Tensor], frames: int, duration: float, video: str) -> Arrays:
            pixels = to_pixels(torch.cat(list(batches)), model.picture, device)
            empty = pixels.new_zeros(slots - frames, *pixels.shape[1:])
            mask = torch.arange(slots, device=device) < frames
            embeddings = model.encode_video(torch.cat([pixels, empty])[None], mask[None])
            return {name: part.cpu().numpy() for name, part in embeddings._asdict().items()}

        return in_precision(frame_encoder(model, device) if model.reuses_frames else clip, self.precision, device)

    @torch.inference_mode()
    def embed(self, arrays: Sequence[Mapping[str, np.ndarray]], device: torch.device) -> Embeddings:
        """Clips on the CPU from their stored arrays; empty slots hold the feature of a zero picture, as released."""
        model = self.model
        if not model.reuses_frames:
            parts = (np.concatenate([stored[name] for stored in arrays]) for name in Embeddings._fields)
            return Embeddings(*map(torch.from_numpy, parts))
        side = model.picture.size
        empty = model.encode_frames(torch.zeros(1, 3, side, side, device=device)).float()[0]
        batches = []
        for start in range(0, len(arrays), _CLIPS_PER_PASS):
            some = [torch.from_numpy(stored["features"]) for stored in arrays[start : start + _CLIPS_PER_PASS]]
            features = empty.repeat(len(some), self.choice.frames, 1)  # [c, F, D]
            mask = torch.zeros(len(some), self.choice.frames, dtype=torch.bool, device=device)
            for row, frames in enumerate(some):
                features[row, : len(frames)], mask[row, : len(frames)] = frames.to(device).float(), True
            batches.append(Embeddings(*(x.cpu() for x in model.embed_clips(features, mask))))
        return joined(batches)


class ChosenGrid(NamedTuple):
    """In place of a grid: the few frames of a video that were chosen for it, all of which are its clip."""

    choice: FrameChoice

    @property
    def frames_per_clip(self) -> int:
        """No clip has more; a short video has fewer."""
        return self.choice.frames

    def fits(self, reading: PictureReader) -> bool:
        """Whether that reads these frames."""
        return reading.choice == self.choice

    def expected(self, video: Video) -> float:
        """The most that a video can have."""
        return self.choice.frames

    def rows(self, time: float, frames: int, *, video: str, duration: float = 0.0) -> np.ndarray:
        """[T] all frames of the video, T = `frames`."""
        return np.arange(frames)


def choose_frames(data: DataConfig, model: VideoTextModel, *, weights: str) -> FrameChoice:
    """Which frames are a video's clip. Raises ConfigError for a number of frames that `weights` do not take."""
    rule = data.frame_rule
    if rule == AUTO:
        # ms-xclip knows no empty slots, which a short video leaves on a grid of seconds.
        rule = "spread" if data.name.endswith("-mmaction2") or model.family == "ms-xclip" else "grid"
    if rule == "grid" and model.family == "ms-xclip":
        why = f"{weights} knows no empty slots, which a short video leaves"
        raise ConfigError("data.frame_rule=grid", why=why, attempt="--data.frame_rule=spread")
    frames = choose_sampling(data, clip_frames=model.clip_frames).frames_per_clip
    if model.clip_frames not in (0, frames):
        why = f"{weights} takes exactly {model.clip_frames} frame slots"
        attempt = f"--data.frames_per_clip={model.clip_frames}"
        raise ConfigError(f"data.frames_per_clip={frames}", why=why, attempt=attempt)
    return FrameChoice(rule, frames)


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """Rows of several embeddings, one after the other."""
    return Embeddings(*(torch.cat(part) for part in zip(*parts, strict=True)))
