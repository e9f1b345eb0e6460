"""Stored features to score curves: scores[text, clip].

Q texts, N frames of the grid, M clips, F frames of a clip, D width.
"""

from collections.abc import Mapping

import numpy as np
import torch

from xclip_module.errors import NonFiniteError
from xclip_module.interface import Embeddings, VideoTextModel

_CLIPS_PER_PASS = 512  # so that memory does not grow with the video


@torch.inference_mode()
def score_stored(
    stored: Mapping[str, np.ndarray], text: Embeddings, model: VideoTextModel, *, rows: np.ndarray, device: torch.device
) -> np.ndarray:
    """Scores [Q, M] float32 of all texts for all clips of one video.

    stored: "features" [N, D] of its frames, or "pooled" and "tokens" of its clips.
    rows: [M, F] grid rows of each clip.
    """
    make = _clips_of_frames if model.reuses_frames else _stored_clips
    columns = [
        model.similarity(text, make(stored, rows[start : start + _CLIPS_PER_PASS], start, model, device)).cpu()
        for start in range(0, len(rows), _CLIPS_PER_PASS)
    ]
    return torch.cat(columns, dim=1).float().numpy()


def check_finite(scores: np.ndarray, video: str) -> None:
    """Raises NonFiniteError naming the video when a score is NaN or infinite."""
    if not np.isfinite(scores).all():
        count = f"{int((~np.isfinite(scores)).sum())} of {scores.size}"
        raise NonFiniteError("scores are not finite", video, count, "--run.precision=fp32, or other weights")


def _clips_of_frames(
    stored: Mapping[str, np.ndarray], rows: np.ndarray, start: int, model: VideoTextModel, device: torch.device
) -> Embeddings:
    features = torch.from_numpy(stored["features"][rows]).to(device).float()  # [m, F, D]
    return model.embed_clips(features, torch.ones(rows.shape, dtype=torch.bool, device=device))


def _stored_clips(
    stored: Mapping[str, np.ndarray], rows: np.ndarray, start: int, model: VideoTextModel, device: torch.device
) -> Embeddings:
    part = slice(start, start + len(rows))
    pooled, tokens = (torch.from_numpy(stored[name][part]).to(device).float() for name in ("pooled", "tokens"))
    return Embeddings(pooled, tokens, torch.ones(tokens.shape[:2], dtype=torch.bool, device=device))
