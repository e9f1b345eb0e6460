"""Batches of training clips, prepared by threads ahead of the model.

Threads, not processes: the decoders, torch and NumPy release the GIL, and nothing has to be pickled or copied.

Letters: T frame slots, H side of a picture, B samples of a batch, b this process's share, S sentences, W words.
"""

import math
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from xclip_module.errors import DataError, UserError
from xclip_module.interface import Batch, ClipSource
from xclip_module.run.distributed import World, share
from xclip_module.training.batches.augment import Augmentation, augment
from xclip_module.training.batches.sampling_plan import Positives


class AnyPlan(Protocol):
    """Which samples belong to which step, and who matches whom among them; see `sampling_plan.Plan`.

    A sample has video, time (seconds), sentence, epoch and draw, which seed what is random about it, and a name.
    """

    training: Any
    batch_size: int
    seed: int
    clips_per_epoch: int
    steps_per_epoch: int

    def samples(self, step: int) -> Sequence[Any]:
        """Those of a step, counted from 0 over all epochs."""
        ...

    def positives(self, samples: Sequence[Any], *, all_sentences: bool = False) -> Positives:
        """Sentences against clips of a batch."""
        ...


class _Share(NamedTuple):
    """This process's clips of one step, under way."""

    samples: Sequence[Any]
    start: int
    frames: Tensor  # [b, T, 3, H, H], filled clip by clip
    shown: Tensor  # [b, T]
    waiting: list[Future[None]]


class Loader:
    """The batches of a plan, as this process sees them."""

    def __init__(
        self,
        plan: AnyPlan,
        frames: ClipSource,
        *,
        input_ids: Tensor,
        mask: Tensor,
        augmentation: Augmentation,
        world: World,
        threads: int,
        all_sentences: bool = False,
    ):
        """Starts nothing.

        input_ids, mask: [S, W] tokens of all sentences of the training set.
        threads: 0 = clips are prepared where they are asked for.
        all_sentences: a batch holds all sentences, not only those of its samples.
        """
        self._plan, self._frames, self._augmentation = plan, frames, augmentation
        self._input_ids, self._mask, self._all_sentences = input_ids, mask, all_sentences
        self._world, self._threads = world, threads

    def batches(self, start_step: int, stop_step: int) -> Generator[Batch, None, None]:
        """The batches of steps `start_step` to `stop_step` (excluded); closing the generator ends the threads.

        They are the same for any number of threads and any first step; the shares of all processes, one behind the
        other, are the batch of a single one. An error names its clip: DataError where it cannot be read.
        """
        if not self._threads:
            for step in range(start_step, stop_step):
                yield self._finish(self._begin(step, None))
            return
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="clips", initializer=_compute_on_one_core)
        try:
            under_way: deque[_Share] = deque()
            for step in range(start_step, stop_step):
                under_way.append(self._begin(step, pool))
                if len(under_way) > self._ahead(len(under_way[0].frames)):
                    yield self._finish(under_way.popleft())
            while under_way:
                yield self._finish(under_way.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _ahead(self, share: int) -> int:
        """Batches under way behind the one that is wanted: two clips a thread, and one batch at least."""
        return 1 + math.ceil(2 * self._threads / max(share, 1))

    def _begin(self, step: int, pool: ThreadPoolExecutor | None) -> _Share:
        """Hands the clips of this process's share to the threads, or prepares them."""
        samples = self._plan.samples(step)
        mine = share(len(samples), self._world.rank, self._world.size)
        side = self._augmentation.size
        slots = (len(mine), self._frames.grid.frames_per_clip)
        # From pinned memory a GPU takes them while it computes.
        is_pinned = self._world.device.type == "cuda"
        frames = torch.empty((*slots, 3, side, side), dtype=torch.uint8, pin_memory=is_pinned)
        shown = torch.empty(slots, dtype=torch.bool, pin_memory=is_pinned)
        jobs = zip(samples[mine.start : mine.stop], frames, shown, strict=True)
        if pool is not None:
            return _Share(samples, mine.start, frames, shown, [pool.submit(self._prepare, *job) for job in jobs])
        for job in jobs:
            self._prepare(*job)
        return _Share(samples, mine.start, frames, shown, [])

    def _prepare(self, sample: Any, into: Tensor, shown: Tensor) -> None:
        """Writes one clip into its place; what it has no frame for stays black and is not shown."""
        try:
            clip = self._frames.clip(sample.video, sample.time)
            count = len(clip)
            into[:count].copy_(augment(clip, self._augmentation, seed=(self._plan.seed, sample.epoch, sample.draw)))
            into[count:] = 0
            shown[:] = torch.arange(len(shown)) < count
        except UserError as error:
            attempt = "--finetune.frames=cache, which can leave such a video out before training"
            raise DataError("cannot prepare clip", sample.name, str(error), attempt) from error
        except Exception as error:
            error.add_note(f"while clip {sample.name} was prepared")
            raise

    def _finish(self, share: _Share) -> Batch:
        for clip in share.waiting:
            clip.result()
        relation = self._plan.positives(share.samples, all_sentences=self._all_sentences)
        rows = torch.from_numpy(relation.rows)
        return Batch(
            frames=share.frames,
            shown=share.shown,
            start=share.start,
            input_ids=self._input_ids[rows],
            mask=self._mask[rows],
            sentences=torch.from_numpy(relation.sentences),
            positives=torch.from_numpy(relation.positives),
            unknown=torch.from_numpy(relation.unknown),
            names=tuple(sample.name for sample in share.samples),
        )


def _compute_on_one_core() -> None:
    """Of a new thread: it computes alone, else every thread would start as many more as there are cores."""
    torch.get_num_threads()  # torch sets its own number when a thread first asks, and would overrule the next line
    threadpool_limits(1, user_api="openmp")
