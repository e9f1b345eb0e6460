"""Which clips, when exactly and with which sentence: a pure function of (seed, step).

Nothing is remembered from step to step, so a resume, another number of processes or of threads changes nothing.

Letters: M items of the training set, B samples of a batch, U sentences of a batch, Q classes, S sentences.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xclip_module.errors import ConfigError
from xclip_module.training.batches.training_set import TrainingSet

# First word of every seed, so that no two kinds of draws share their random numbers.
_ORDER, _BALANCED, _SAMPLE, _PARTNER = range(4)
# A partner comes from this share of its phase's clips, those next to the border.
_NEAREST = 1 / 3


class Sample(NamedTuple):
    """One clip of a batch.

    item: number in the training set.  time: seconds after jitter, the middle of the clip.  sentence: row of its own.
    epoch, draw: draw is its place in the epoch; together they seed what else is random about it.
    """

    item: int
    video: str
    time: float
    sentence: int
    epoch: int
    draw: int

    @property
    def name(self) -> str:
        """For messages: which clip."""
        return f"{self.video} at {self.time:.1f} s"


class Positives(NamedTuple):
    """Who matches whom in a batch.

    rows: [U] the sentences that take part.  sentences: [B] which of them is each sample's own.
    positives: [U, B] bool, True where a sentence holds in a clip.  unknown: [U, B] bool, True where nobody has said.
    """

    rows: np.ndarray
    sentences: np.ndarray
    positives: np.ndarray
    unknown: np.ndarray


class Plan:
    """The samples of every step of a training."""

    def __init__(
        self,
        training: TrainingSet,
        *,
        batch_size: int,
        seed: int,
        jitter_seconds: float = 0.0,
        balance_phases: bool = False,
        hard_negatives: float = 0.0,
        drop_last: bool = False,
    ):
        """Draws nothing yet.

        jitter_seconds: clips move by up to so much, either way.
        balance_phases: every phase is drawn equally often, else every item once an epoch.
        hard_negatives: share of a batch, at most 0.5, that is replaced by clips from the phase beside another clip's.
        drop_last: leave out an epoch's last batch where it is smaller.
        Raises ConfigError where no batch comes out, and for balance without phases.
        """
        self.training, self.batch_size, self.seed = training, batch_size, seed
        self._jitter, self._hard_negatives = jitter_seconds, hard_negatives
        self.clips_per_epoch = len(training.item_time)
        self.steps_per_epoch = count_steps(self.clips_per_epoch, batch_size, drop_last=drop_last)
        self._groups = _phase_groups(training) if balance_phases else []
        self._phases = {video.id: training.phase_segments(video.id) for video in training.videos}
        self._order = functools.lru_cache(maxsize=2)(self._draw_order)
        self._neighbours = functools.lru_cache(maxsize=None)(self._find_neighbours)

    def samples(self, step: int) -> tuple[Sample, ...]:
        """The B samples of a step, counted from 0 over all epochs; an epoch's last batch may be smaller."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        first = batch * self.batch_size
        items = self._order(epoch)[first : first + self.batch_size]
        chosen = [self._sample(item, epoch, draw) for draw, item in enumerate(items.tolist(), first)]
        partners = min(round(self._hard_negatives * len(chosen)), len(chosen) // 2)
        # The last of a batch give way to partners of its first: no anchor is itself replaced.
        for anchor in range(partners):
            last = len(chosen) - partners + anchor
            chosen[last] = self._partner(chosen[anchor], first + last) or chosen[last]
        return tuple(chosen)

    def positives(self, samples: Sequence[Sample], *, all_sentences: bool = False) -> Positives:
        """Sentences against clips of a batch.

        all_sentences: every sentence of the training set takes part, else the batch's own, in order of appearance.
        """
        sentences = [sample.sentence for sample in samples]
        rows = list(range(len(self.training.sentences))) if all_sentences else list(dict.fromkeys(sentences))
        classes = self.training.class_of[rows]
        holds = np.stack([self.training.holds(sample.video, sample.time) for sample in samples])
        is_known = np.stack([self.training.tracks[sample.video].known for sample in samples])
        number_of = {row: number for number, row in enumerate(rows)}
        return Positives(
            rows=np.array(rows),
            sentences=np.array([number_of[row] for row in sentences]),
            positives=holds[:, classes].T,
            unknown=~is_known[:, classes].T,
        )

    def _draw_order(self, epoch: int) -> np.ndarray:
        """[M] the items of an epoch."""
        order = self._random(_ORDER, epoch).permutation(len(self.training.item_time))
        return self._balanced(epoch)[order] if self._groups else order

    def _balanced(self, epoch: int) -> np.ndarray:
        """[M] items, of every phase equally many within one: draw d of all epochs belongs to phase d modulo phases.

        A phase's items come in permutations that go on over the epochs, so that none is drawn twice before all were.
        """
        count, phases = len(self.training.item_time), len(self._groups)
        draws = epoch * count + np.arange(count)
        chosen = np.empty(count, int)
        for number, items in enumerate(self._groups):
            of_phase = draws % phases == number
            cycles, within = np.divmod(draws[of_phase] // phases, len(items))
            drawn = {c: self._random(_BALANCED, number, c).permutation(items) for c in np.unique(cycles).tolist()}
            chosen[of_phase] = [drawn[c][w] for c, w in zip(cycles.tolist(), within.tolist(), strict=True)]
        return chosen

    def _sample(self, item: int, epoch: int, draw: int) -> Sample:
        rng = self._random(_SAMPLE, epoch, draw)
        video = self._video_of(item)
        time = self._jittered(item, rng)
        # Moved to where nothing holds, it would have no sentence.
        if not self.training.holds(video, time).any():
            time = float(self.training.item_time[item])
        return Sample(item, video, time, self._sentence(video, time, rng), epoch, draw)

    def _partner(self, anchor: Sample, draw: int) -> Sample | None:
        """A clip from the phase before or after the anchor's, near their border; None where there is none."""
        rng = self._random(_PARTNER, anchor.epoch, draw)
        beside = self._neighbours(anchor.video, self._segment_of(anchor))
        if not beside:
            return None
        items, phase = beside[rng.integers(len(beside))]
        item = _pick(items, rng)
        time = self._jittered(item, rng)
        # Moved over the border, it would be of the anchor's own phase.
        if self.training.phase(anchor.video, time) != phase:
            time = float(self.training.item_time[item])
        return Sample(item, anchor.video, time, self._sentence(anchor.video, time, rng), anchor.epoch, draw)

    def _segment_of(self, sample: Sample) -> int:
        """Which of its video's phase segments a sample lies in, -1 for none."""
        segments = enumerate(self._phases[sample.video])
        return next((n for n, (start, end, _) in segments if start <= sample.time < end), -1)

    def _find_neighbours(self, video: str, segment: int) -> list[tuple[np.ndarray, int]]:
        """Of the phase segments before and after one, where they have items: those near the border, and the phase."""
        if segment < 0:
            return []
        segments = self._phases[video]
        start, end, phase = segments[segment]
        beside = []
        for neighbour, border in ((segment - 1, start), (segment + 1, end)):
            if not 0 <= neighbour < len(segments) or segments[neighbour][2] == phase:
                continue
            items = self._items_between(video, *segments[neighbour][:2])
            if len(items):
                by_distance = np.argsort(np.abs(self.training.item_time[items] - border), kind="stable")
                beside.append((items[by_distance[: int(np.ceil(len(items) * _NEAREST))]], segments[neighbour][2]))
        return beside

    def _items_between(self, video: str, start: float, end: float) -> np.ndarray:
        ids = [candidate.id for candidate in self.training.videos]
        times = self.training.item_time
        return np.flatnonzero((self.training.item_video == ids.index(video)) & (start <= times) & (times < end))

    def _jittered(self, item: int, rng: np.random.Generator) -> float:
        moved = self.training.item_time[item] + rng.uniform(-self._jitter, self._jitter)
        # Segments are half open: at the very end of a video nothing holds.
        last = np.nextafter(self.training.tracks[self._video_of(item)].seconds, 0)
        return float(np.clip(moved, 0, last))

    def _sentence(self, video: str, time: float, rng: np.random.Generator) -> int:
        """One of the classes that hold, each as likely, then one of its sentences."""
        chosen = _pick(np.flatnonzero(self.training.holds(video, time)), rng)
        return _pick(np.flatnonzero(self.training.class_of == chosen), rng)

    def _video_of(self, item: int) -> str:
        return self.training.videos[self.training.item_video[item]].id

    def _random(self, *words: int) -> np.random.Generator:
        return np.random.default_rng((words[0], self.seed, *words[1:]))


def count_steps(clips: int, batch_size: int, *, drop_last: bool) -> int:
    """Batches of an epoch. Raises ConfigError where that is none.

    >>> count_steps(10, 4, drop_last=False), count_steps(10, 4, drop_last=True)
    (3, 2)
    """
    steps = clips // batch_size if drop_last else -(-clips // batch_size)
    if not steps:
        why = f"an epoch has {clips} clips, and finetune.drop_last leaves no batch"
        raise ConfigError(f"finetune.batch_size={batch_size}", why=why, attempt="--finetune.drop_last=false")
    return steps


def _pick(choices: np.ndarray, rng: np.random.Generator) -> int:
    return int(choices[rng.integers(len(choices))])


def _phase_groups(training: TrainingSet) -> list[np.ndarray]:
    """The items of each phase that has any."""
    ids = [training.videos[number].id for number in training.item_video]
    phases = [training.phase(video, time) for video, time in zip(ids, training.item_time.tolist(), strict=True)]
    present = sorted({phase for phase in phases if phase is not None})
    groups = [np.flatnonzero([phase == wanted for phase in phases]) for wanted in present]
    if not groups:
        why = "no training clip lies in a phase"
        raise ConfigError("finetune.balance_phases=true", why=why, attempt="--finetune.balance_phases=false")
    return groups
