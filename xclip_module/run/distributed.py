"""All that differs between one process and several under torchrun."""

import contextlib
import ctypes
import datetime
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from xclip_module.errors import ConfigError, PeerError

T = TypeVar("T")

# Ranks finish their videos hours apart; a rank that dies is torchrun's business, which ends the others.
_PATIENCE = datetime.timedelta(days=30)
# Inside a training step all ranks do the same work: one that is so late hangs.
_STEP_PATIENCE = datetime.timedelta(minutes=10)
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG


class World(NamedTuple):
    """This process among all: rank of size, and the device it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True for the one process that prints and writes results."""
        return self.rank == 0


def start(device: str) -> World:
    """The world that torchrun's environment describes, or one process.

    device: "auto" takes CUDA where there is one, else "cpu" or "cuda". Raises ConfigError for "cuda" without a GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device=cuda", why="torch finds no GPU here", attempt="--run.device=cpu")
    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    number = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = torch.device(name, number % max(1, torch.cuda.device_count())) if name == "cuda" else torch.device(name)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size > 1:
        _end_with_parent()
        dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    return World(rank, size, chosen)


def _end_with_parent() -> None:
    """A torchrun that is killed cannot end its processes, which would hold their GPUs for ever."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PARENT_DEATH, signal.SIGTERM)


def step_group(world: World) -> Any:
    """The process group for what happens inside a training step, where a hang shows after ten minutes; None for one."""
    return dist.new_group(timeout=_STEP_PATIENCE) if world.size > 1 else None


def stop(world: World) -> None:
    """Leaves the process group."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def shard(items: Sequence[T], world: World) -> list[T]:
    """This rank's share: every item belongs to exactly one rank.

    >>> shard("abcde", World(1, 2, torch.device("cpu")))
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
