"""All that differs between one process and several under torchrun."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import functools
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from xclip_module.errors import ConfigError, PeerError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

# Ranks finish their videos hours apart; a rank that dies is torchrun's business, which ends the others.
_PATIENCE = datetime.timedelta(days=30)
# Inside a training step all ranks do the same work: one that is so late hangs.
_STEP_PATIENCE = datetime.timedelta(minutes=10)
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class World:
    """This process among all: rank of size, and the device it computes on.

    wanted: that device, or a word of `run.device`.
    """

    rank: int
    size: int
    wanted: torch.device | str

    @property
    def is_main(self) -> bool:
        """True for the one process that prints and writes results."""
        return self.rank == 0

    @functools.cached_property
    def device(self) -> torch.device:
        """The device, looked for when first asked: only torch can tell, whose import takes seconds."""
        return _find_device(self.wanted) if isinstance(self.wanted, str) else self.wanted


def start(device: str) -> World:
    """The world that torchrun's environment describes, or one process.

    device: "auto" takes CUDA where there is one, else "cpu" or "cuda". Raises ConfigError for "cuda" without a GPU.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 and device != "cuda":
        return World(rank, size, device)
    # A missing GPU must show before there is a run folder, and the backend below depends on the device.
    world = World(rank, size, _find_device(device))
    if size > 1:
        import torch.distributed as dist

        _end_with_parent()
        backend = "cpu:gloo,cuda:nccl" if world.device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=_PATIENCE)
    return world


def _find_device(name: str) -> torch.device:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device=cuda", why="torch finds no GPU here", attempt="--run.device=cpu")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    number = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", number % max(1, torch.cuda.device_count()))
    torch.cuda.set_device(device)
    return device


def _end_with_parent() -> None:
    """A torchrun that is killed cannot end its processes, which would hold their GPUs for ever."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGTERM)


def step_group(world: World) -> Any:
    """The process group for what happens inside a training step, where a hang shows after ten minutes; None for one."""
    if world.size == 1:
        return None
    import torch.distributed as dist

    return dist.new_group(timeout=_STEP_PATIENCE)


def stop(world: World) -> None:
    """Leaves the process group."""
    if world.size > 1:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()


def shard(items: Sequence[T], world: World) -> list[T]:
    """This rank's share: every item belongs to exactly one rank.

    >>> shard("abcde", World(1, 2, "cpu"))
    ['b', 'd']
    """
    return list(items[world.rank :: world.size])


def share(count: int, rank: int, size: int) -> range:
    """Which of `count` rows are a process's: runs of nearly equal length, as numpy.array_split makes them.

    >>> [share(5, rank, 3) for rank in range(3)]
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    least, larger = divmod(count, size)
    start = rank * least + min(rank, larger)
    return range(start, start + least + (rank < larger))


def gather(value: Any, world: World) -> list[Any]:
    """Every rank's value, by rank, on every rank; uneven and nested values are fine.

    Raises PeerError when another rank has ended, which has said why itself.
    """
    if world.size == 1:
        return [value]
    import torch.distributed as dist

    values = [None] * world.size
    with peer_errors():
        dist.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def peer_errors() -> Iterator[None]:
    """Turns what a collective raises when another rank has ended into PeerError."""
    try:
        yield
    except RuntimeError as error:
        # gloo and NCCL have no class of their own for a peer that hung up.
        if not re.search("gloo|nccl|connection", str(error), re.IGNORECASE):
            raise
        raise PeerError("another process ended", why="its own line says why") from error
