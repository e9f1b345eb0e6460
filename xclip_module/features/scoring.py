"""What is made of a video's stored arrays: scores[text, clip], and for a probe one vector a clip.

Q texts, N frames of the grid, M clips (a probe's windows), F frames of a clip, D width.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from xclip_module.errors import NonFiniteError
from xclip_module.interface import Embeddings, VideoTextModel

FRAME, WINDOW, HEADER, VIDEO = "frame", "window", "temporal", "video"
_CLIPS_PER_PASS = 512  # so that memory does not grow with the video


@torch.inference_mode()
def score_stored(
    stored: Mapping[str, np.ndarray], text: Embeddings, model: VideoTextModel, *, rows: np.ndarray, device: torch.device
) -> np.ndarray:
    """Scores [Q, M] float32 of all texts for all clips of one video.

    stored: "features" [N, D] of its frames, or "pooled" and "tokens" of its clips.
    rows: [M, F] grid rows of each clip.
    """
    columns = []
    for start in range(0, len(rows), _CLIPS_PER_PASS):
        part = slice(start, start + _CLIPS_PER_PASS)
        if model.reuses_frames:
            clips = _clips_of_frames(_on_device(stored["features"][rows[part]], device), model)
        else:
            pooled, tokens = (_on_device(stored[name][part], device) for name in ("pooled", "tokens"))
            clips = Embeddings(pooled, tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=device))
        columns.append(model.similarity(text, clips).cpu())
    return torch.cat(columns, dim=1).float().numpy()


def check_finite(scores: np.ndarray, video: str) -> None:
    """Raises NonFiniteError naming the video when a score is NaN or infinite."""
    if not np.isfinite(scores).all():
        count = f"{int((~np.isfinite(scores)).sum())} of {scores.size}"
        raise NonFiniteError("scores are not finite", video, count, "--run.precision=fp32, or other weights")


def known_features(model: VideoTextModel) -> tuple[str, ...]:
    """What of this model's features a probe can see, the usual one first."""
    if not model.reuses_frames:
        return (VIDEO,)
    return (WINDOW, FRAME, HEADER) if model.has_header else (WINDOW, FRAME)


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
    for start in range(0, len(rows), _CLIPS_PER_PASS):
        part = rows[start : start + _CLIPS_PER_PASS]
        if kind == VIDEO:
            parts.append(_unit(_on_device(stored["pooled"][start : start + len(part)], device)))
            continue
        if kind == FRAME:
            part = part[:, part.shape[1] // 2, None]
        frames = _on_device(stored["features"][part], device)  # [m, F, D]
        parts.append(_clips_of_frames(frames, model).pooled if kind == HEADER else _unit(frames).mean(dim=1))
    features = torch.cat(parts)
    if not torch.isfinite(features).all():
        count = f"NaN or infinity in {int((~torch.isfinite(features)).any(dim=1).sum())} of {len(features)} windows"
        attempt = "--run.precision=fp32, or another --data.features"
        raise NonFiniteError("features are not finite", video, count, attempt)
    return features


def _on_device(array: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device).float()


def _clips_of_frames(frames: Tensor, model: VideoTextModel) -> Embeddings:
    return model.embed_clips(frames, torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device))


def _unit(vectors: Tensor) -> Tensor:
    """An all-zero vector stays zero."""
    return torch.nn.functional.normalize(vectors, dim=-1)
