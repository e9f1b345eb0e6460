"""How long parts of a run take, and what the whole will take."""

from __future__ import annotations

import contextlib
import datetime
import logging
import resource
import shutil
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from xclip_module.errors import DiskError
from xclip_module.run.folder import Run

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


class Spent:
    """Seconds of a part, once it is done."""

    seconds = 0.0


@contextlib.contextmanager
def timed(what: str) -> Iterator[Spent]:
    """Says that a part went well and how long it took."""
    spent, start = Spent(), time.monotonic()
    yield spent
    spent.seconds = time.monotonic() - start
    log.info("ok: %s, %.1f s", what, spent.seconds)


def forecast(seconds: Mapping[str, float], size: Mapping[str, int], run: Run, note: str) -> None:
    """Says how long the parts of a run will take, and their bytes. Raises DiskError where there is no room for them."""
    total = sum(seconds.values())
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=total)
    parts = ", ".join(f"{name} {clock(value)}" for name, value in seconds.items())
    memory, free = peak_memory(run.world.device) / 1e9, shutil.disk_usage(run.folder).free
    log.info("forecast: %s (%s), ends about %s; %s", clock(total), parts, end.strftime("%a %d %b %H:%M UTC"), note)
    log.info("memory: %.2f GB at its peak so far", memory)
    if size:
        named = ", ".join(f"{name} {value / 1e9:.2f} GB" for name, value in size.items())
        log.info("disk: %s; %.2f GB are free", named, free / 1e9)
    if sum(size.values()) > free:
        amounts = f"{sum(size.values()) / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free"
        raise DiskError("no room for this run", run.folder.parent, amounts, "free space, or --run.root=FOLDER")


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(3725)
    '1:02:05'
    """
    return f"{int(seconds) // 3600}:{int(seconds) % 3600 // 60:02d}:{int(seconds) % 60:02d}"


def peak_memory(device: torch.device) -> int:
    """The most bytes in use so far: of the device, on a CPU of the process."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    # Linux counts in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
