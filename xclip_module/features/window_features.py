"""Stored arrays of a video to what a probe sees: one vector a window.

M windows, F frames of a window, N frames of the grid, D width.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from xclip_module.errors import NonFiniteError
from xclip_module.interface import VideoTextModel

FRAME, WINDOW, TEMPORAL, VIDEO = "frame", "window", "temporal", "video"
_WINDOWS_PER_PASS = 512  # so that memory does not grow with the video


def known_features(model: VideoTextModel) -> tuple[str, ...]:
    """What of this model's features a probe can see, the usual one first."""
    if not model.reuses_frames:
        return (VIDEO,)
    return (WINDOW, FRAME, TEMPORAL) if model.has_header else (WINDOW, FRAME)


@torch.inference_mode()
def window_features(
    stored: Mapping[str, np.ndarray],
    model: VideoTextModel,
    *,
    rows: np.ndarray,
    kind: str,
    device: torch.device,
    video: str,
) -> Tensor:
    """Features [M, D] float32 of the windows with the grid rows [M, F], on the device.

    kind: "frame" = the normalised feature of the frame in the middle; "window" = the mean of the normalised frames;
        "temporal" = the model's own embedding of the window, after its temporal header; "video" = the normalised
        embedding of models that encode whole clips (`ms-xclip`).
    Raises NonFiniteError naming the video.
    """
    parts = []
    for start in range(0, len(rows), _WINDOWS_PER_PASS):
        part = rows[start : start + _WINDOWS_PER_PASS]
        if kind == VIDEO:
            parts.append(_unit(torch.from_numpy(stored["pooled"][start : start + len(part)]).to(device).float()))
            continue
        if kind == FRAME:
            part = part[:, part.shape[1] // 2, None]
        frames = torch.from_numpy(stored["features"][part]).to(device).float()  # [m, F, D]
        if kind == TEMPORAL:
            parts.append(model.embed_clips(frames, torch.ones(part.shape, dtype=torch.bool, device=device)).pooled)
        else:
            parts.append(_unit(frames).mean(dim=1))
    features = torch.cat(parts)
    if not torch.isfinite(features).all():
        count = f"NaN or infinity in {int((~torch.isfinite(features)).any(dim=1).sum())} of {len(features)} windows"
        raise NonFiniteError(
            "features are not finite", video, count, "--run.precision=fp32, or another --data.features"
        )
    return features


def _unit(vectors: Tensor) -> Tensor:
    """An all-zero vector stays zero."""
    return torch.nn.functional.normalize(vectors, dim=-1)
