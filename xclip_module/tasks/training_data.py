"""What a training learns from and how it is judged, whatever kind of data it is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from xclip_module.features.stored_frames import FrameStorage
from xclip_module.features.video_pass import Arrays
from xclip_module.interface import AnyGrid, Picture, Video
from xclip_module.models.tokenizer import Tokens
from xclip_module.run.folder import Run
from xclip_module.training.batches.loader import AnyPlan

# From this process's videos, with "pictures" [N, 3, H, H] of their frames: numbers, the same on every process.
Measure = Callable[[Sequence[tuple[Video, Arrays]], Run], dict[str, float | None]]


class Validation(NamedTuple):
    """How the present weights are judged.

    split: whose videos; they are none where there is no such split.  place, grid: where their frames are stored, how
    they are read, and which they are.
    digest: changes with what is judged: sentences, truth, files.
    can_choose: False where it is the split that is reported: a step chosen there would be praised for it.
    """

    split: str
    videos: tuple[Video, ...]
    place: FrameStorage
    grid: AnyGrid
    measure: Measure
    digest: str
    can_choose: bool

    @property
    def in_words(self) -> str:
        """For the results; begins with the name of the split."""
        return self.split if self.can_choose else f"{self.split} (the split that is reported: it chooses nothing)"


class TrainingData(NamedTuple):
    """All but the pixels, of any kind of data.

    set: clips and sentences, a `TrainingSet` or `PairSet`.  tokens: of all its sentences.
    place, grid: where training frames are stored, how they are read, and which of them are a clip.
    plan: from the set, or what is left of it, which clips belong to which step.
    missing: training videos that are not there -> why.  scored: the videos that are scored after training.
    """

    set: Any
    tokens: Tokens
    picture: Picture
    place: FrameStorage
    grid: AnyGrid
    plan: Callable[[Any], AnyPlan]
    missing: Mapping[str, str]
    validation: Validation
    scored: tuple[Video, ...]
