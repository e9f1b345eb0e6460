"""A small training set by hand, frames that show which clip they are, and a model as a step calls it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from xclip_module.interface import Corpus, Query, Video
from xclip_module.training.batches.training_set import training_set


class StepCalls(NamedTuple):
    """A model for `grad_cache.backward` of loose functions."""

    encode_text: Callable
    encode_video: Callable
    similarity: Callable
    to_pixels: Callable

    @classmethod
    def of(cls, model, *, to_pixels=lambda frames: frames):
        """Those of a model; its pixels are the frames as they lie in the batch."""
        return cls(model.encode_text, model.encode_video, model.similarity, to_pixels)


PHASES = ("P0", "P1", "P2")
TOOLS = ("T0", "T1")
SECONDS = 30.0


def corpus(**changes):
    """Three labelled training videos of 30 s, the first without tools, the last with 2 s of nothing; val and test."""
    queries = [Query(name, f"the {name}", "phase") for name in PHASES]
    queries += [Query(name, f"a {name}", "tool") for name in TOOLS]
    phases = {"P0": ((0.0, 6.0), (20.0, 30.0)), "P1": ((6.0, 17.5),), "P2": ((17.5, 20.0),)}
    tools = {"T0": ((3.0, 9.0), (12.0, 14.0)), "T1": ()}
    moments = {
        "a": phases,
        "b": {**phases, **tools},
        "c": {"P0": (), "P1": ((0.0, 12.0), (14.0, 29.0)), "P2": (), "T0": (), "T1": ((28.0, 30.0),)},
        "v": phases,
        "t": phases,
    }
    videos = [Video(name, None, "train", SECONDS) for name in ("a", "b", "c", "unlabelled")]
    videos += [Video("v", None, "val", SECONDS), Video("t", None, "test", SECONDS)]
    return Corpus("small", tuple(videos), tuple(queries), moments, "")._replace(**changes)


def small_set(*, use_tools=True, clip_stride_seconds=1.0, paraphrases=1):
    """The training set of `corpus`, each class with so many further sentences."""
    known = corpus()
    texts = {q.name: (q.text, *(f"{q.text}, {n}" for n in range(paraphrases))) for q in known.queries}
    return training_set(known, texts=texts, use_tools=use_tools, clip_stride_seconds=clip_stride_seconds)


class FourFrames(NamedTuple):
    """A grid whose clips have four frames."""

    frames_per_clip: int = 4


class NumberedFrames:
    """Stands for the videos: every pixel of a clip tells its video and time, rounded."""

    grid = FourFrames()

    def clip(self, video, time):
        level = (ord(video[0]) * 7 + int(time * 10)) % 256
        frames = np.arange(level, level + 4, dtype=np.uint8)[:, None, None, None]
        return torch.from_numpy(np.broadcast_to(frames, (4, 3, 16, 16)).copy())
