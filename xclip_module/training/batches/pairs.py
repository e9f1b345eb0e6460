"""Pairs of sentence and video as training data, and which pairs belong to which step: a function of (seed, step).

Letters: C videos, S sentences, M pairs, B samples of a batch, U sentences of a batch.
"""

import functools
import hashlib
import json
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from xclip_module.errors import DataError
from xclip_module.interface import Video
from xclip_module.training.batches.sampling_plan import Positives, count_steps
from xclip_module.training.batches.training_set import files_of

# First word of every seed, so that no two kinds of draws share their random numbers.
_ORDER, _SENTENCE = range(2)


class PairSet(NamedTuple):
    """Videos with their sentences.

    sentences: [S].  class_of: [S] place of each sentence's video in `videos`.
    item_video, item_sentence: [M] the pairs.
    """

    videos: tuple[Video, ...]
    sentences: tuple[str, ...]
    class_of: np.ndarray
    item_video: np.ndarray
    item_sentence: np.ndarray

    @property
    def digest(self) -> str:
        """Changes with any video's file or span, sentence or pair; not with the place of the data."""
        spans = [list(video.span) if video.span else None for video in self.videos]
        digest = hashlib.sha256(json.dumps([*files_of(self.videos), spans, self.sentences]).encode())
        digest.update(self.item_video.tobytes() + self.item_sentence.tobytes())
        return digest.hexdigest()[:16]

    def without(self, videos: Collection[str]) -> "PairSet":
        """The same without some videos and their pairs; sentences keep their rows. Raises DataError without any left.

        The class of a sentence without video is -1.
        """
        is_left = np.array([video.id not in videos for video in self.videos], bool)
        kept = is_left[self.item_video]
        if not kept.any():
            raise DataError("nothing to train on", why="no training video is left")
        new_number = np.where(is_left, np.cumsum(is_left) - 1, -1)
        return self._replace(
            videos=tuple(video for video in self.videos if video.id not in videos),
            class_of=new_number[self.class_of],
            item_video=new_number[self.item_video[kept]],
            item_sentence=self.item_sentence[kept],
        )


def pair_set(texts: tuple[str, ...], text_to_video: Sequence[int] | np.ndarray, videos: tuple[Video, ...]) -> PairSet:
    """Every sentence with its video.

    text_to_video: [S] place in `videos` of each text's own.
    """
    owner = np.asarray(text_to_video, np.int64)
    return PairSet(videos, texts, owner, owner, np.arange(len(texts)))


class PairSample(NamedTuple):
    """One sample of a batch.

    sentence: its row.  time: of no meaning, a video is one clip.  epoch, draw: draw is its place in the epoch.
    """

    video: str
    sentence: int
    epoch: int
    draw: int
    time: float = 0.0

    @property
    def name(self) -> str:
        """For messages: which pair."""
        return f"{self.video} with sentence {self.sentence}"


class PairPlan:
    """The pairs of every step of a training; the same words as `sampling_plan.Plan`."""

    def __init__(
        self, training: PairSet, *, batch_size: int, seed: int, one_sentence: bool = False, drop_last: bool = False
    ):
        """Draws nothing yet.

        one_sentence: an epoch has every video once, with a random sentence of its own, else every pair once.
        drop_last: leave out an epoch's last batch where it is smaller.
        Raises ConfigError where no batch comes out.
        Source: CLIP4Clip (Luo et al. 2022) dataloaders/, also X-CLIP's (Ma et al. 2022): every pair is what all of them
        do, MSR-VTT's with `--expand_msrvtt_sentences`, which the published runs set; without, it does `one_sentence`.
        """
        self.training, self.batch_size, self.seed = training, batch_size, seed
        self._one_sentence = one_sentence
        self.clips_per_epoch = len(training.videos) if one_sentence else len(training.item_video)
        self.steps_per_epoch = count_steps(self.clips_per_epoch, batch_size, drop_last=drop_last)
        # Pairs sorted by video: those of video c are by_video[starts[c] : starts[c] + counts[c]].
        self._by_video = np.argsort(training.item_video, kind="stable")
        self._counts = np.bincount(training.item_video, minlength=len(training.videos))
        self._starts = np.cumsum(self._counts) - self._counts
        self._order = functools.lru_cache(maxsize=2)(self._draw_order)

    def samples(self, step: int) -> tuple[PairSample, ...]:
        """The B pairs of a step, counted from 0 over all epochs; an epoch's last batch may be smaller."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.batch_size
        items = self._order(epoch)[first : first + self.batch_size]
        pairs = self.training
        rows = zip(pairs.item_video[items].tolist(), pairs.item_sentence[items].tolist(), strict=True)
        return tuple(
            PairSample(pairs.videos[video].id, sentence, epoch, draw)
            for draw, (video, sentence) in enumerate(rows, first)
        )

    def positives(self, samples: Sequence[PairSample], *, all_sentences: bool = False) -> Positives:
        """Sentences against clips of a batch: those of a video hold in it, the others are said not to.

        Other videos with the very same sentence count as negatives, as released.
        """
        assert not all_sentences, "a softmax over the sentences of all videos is no classification"
        sentences = np.array([sample.sentence for sample in samples])
        rows, first, number = np.unique(sentences, return_index=True, return_inverse=True)
        # In order of appearance, as in `sampling_plan.Plan`; `unique` sorts by value.
        order = np.argsort(first, kind="stable")
        rows, rank = rows[order], np.argsort(order, kind="stable")
        classes = self.training.class_of
        holds = classes[rows][:, None] == classes[sentences][None]
        return Positives(rows=rows, sentences=rank[number], positives=holds, unknown=np.zeros_like(holds))

    def _draw_order(self, epoch: int) -> np.ndarray:
        order = self._random(_ORDER, epoch).permutation(self.clips_per_epoch)
        if not self._one_sentence:
            return order
        drawn = self._random(_SENTENCE, epoch).integers(self._counts)
        return self._by_video[self._starts + drawn][order]

    def _random(self, word: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng((word, self.seed, epoch))
