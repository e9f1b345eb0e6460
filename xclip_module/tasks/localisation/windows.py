"""The windows of a video: how it is cut, encoded and found again in the store."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from xclip_module.config import DataConfig
from xclip_module.datasets.catalogue import choose_sampling
from xclip_module.errors import ConfigError
from xclip_module.features.encoding import encode_clips
from xclip_module.features.store import FeatureStore
from xclip_module.features.video_pass import Arrays, Encode
from xclip_module.interface import Sampling, VideoTextModel, clip_rows, curve_times
from xclip_module.tasks.encode import Encoding, frame_encoder, in_precision, reading_of, stored_key


class WindowEncoder(NamedTuple):
    """What stored features of windows depend on; precision: of the towers, as chosen for the device."""

    model: VideoTextModel
    sampling: Sampling
    precision: str

    @property
    def in_words(self) -> str:
        """One line on the weights."""
        return f"{self.model.protocol}, {self.precision}"

    def encode(self, *, frames_per_forward: int, device: torch.device) -> Encode:
        """What turns a video's frames into the arrays that the store keeps; at most so many frames in a forward."""
        model, sampling = self.model, self.sampling

        def check(frames: int, duration: float, video: str) -> None:
            # Refuses a video shorter than a clip before the work.
            clip_rows(np.zeros(1), frames, sampling, video=video, duration=duration)

        def clips(batches: Iterator[Tensor], frames: int, duration: float, video: str) -> Arrays:
            times = curve_times(duration, sampling.stride_seconds)
            return encode_clips(
                batches,
                model.encode_video,
                rows=clip_rows(times, frames, sampling, video=video, duration=duration),
                clips_per_forward=max(1, frames_per_forward // sampling.frames_per_clip),
                picture=model.picture,
                device=device,
                video=video,
            )

        encode = frame_encoder(model, device, check) if model.reuses_frames else clips
        return in_precision(encode, self.precision, device)

    def encoding(
        self, data: DataConfig, store: FeatureStore, *, frames_per_forward: int, device: torch.device
    ) -> Encoding:
        """How the videos of the data are encoded and stored."""
        key = stored_key(self.model, self.precision)
        return Encoding(
            encode=self.encode(frames_per_forward=frames_per_forward, device=device),
            # Single frames serve every cut; whole clips are stored as they were cut.
            key=key if self.model.reuses_frames else {**key, "clips": list(self.sampling)},
            reading=reading_of(data, fps=self.sampling.fps, size=self.model.picture.size, batch=frames_per_forward),
            store=store,
            skip_unreadable=data.skip_unreadable,
        )

    def windows_of(self, video: str, stored: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Times [M] of a video's windows, and their rows of the frame grid [M, F]; DataError for a short video."""
        duration = float(stored["duration"])
        times = curve_times(duration, self.sampling.stride_seconds)
        return times, clip_rows(times, int(stored["frames"]), self.sampling, video=video, duration=duration)


def sampling_of(data: DataConfig, model: VideoTextModel, *, weights: str) -> Sampling:
    """How videos are cut for this model. Raises ConfigError for another number of frames than `weights` takes."""
    sampling = choose_sampling(data, clip_frames=model.clip_frames)
    if model.clip_frames not in (0, sampling.frames_per_clip):
        raise ConfigError(
            f"data.frames_per_clip={sampling.frames_per_clip}",
            why=f"{weights} takes exactly {model.clip_frames} frames a clip",
            attempt=f"--data.frames_per_clip={model.clip_frames}",
        )
    return sampling
