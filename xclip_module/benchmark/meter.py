"""Seconds, CPU seconds and peak memory of a stretch of code, and the tables of all parts, as lists of lines."""

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

_SAMPLE_SECONDS = 0.01
# Heads of a table of costs, and the width of the numbers below them.
_COLUMNS = {"seconds": 9, "CPU s": 9, "peak MB": 8, "ratio": 7}


@dataclass
class Cost:
    """What a stretch took. memory: growth of the process, on CUDA of the device, at its peak, in bytes."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    memory: int = 0

    def times(self, factor: float) -> "Cost":
        """The cost of `factor` such stretches, one after the other."""
        return Cost(self.seconds * factor, self.cpu_seconds * factor, self.memory)


@contextlib.contextmanager
def measured(device: torch.device | str = "cpu") -> Iterator[Cost]:
    """Measures its body into the yielded `Cost`; memory is sampled every 10 ms on a CPU."""
    is_cuda = torch.device(device).type == "cuda"
    cost, stop = Cost(), threading.Event()
    before = _resident()

    def watch() -> None:
        while not stop.wait(_SAMPLE_SECONDS):
            cost.memory = max(cost.memory, _resident() - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    if is_cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start, cpu = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        if is_cuda:
            torch.cuda.synchronize(device)
        cost.seconds, cost.cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        stop.set()
        thread.join()
        if is_cuda:
            cost.memory = torch.cuda.max_memory_allocated(device)


def apart(function: Callable, *arguments: Any) -> Any:
    """The function's result from a fresh process: memory that a former way gave back would not count as growth."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def table(
    rows: Mapping[str, Cost], *, against: str, by: str = "seconds", notes: Mapping[str, str] | None = None
) -> list[str]:
    """Name, seconds, CPU seconds, peak memory, how many times cheaper than the row `against`, and a note.

    by: what the ratio compares, "seconds" or "cpu_seconds".
    """
    lines = []
    for name, cost in rows.items():
        ratio = getattr(rows[against], by) / getattr(cost, by)
        numbers = (f"{cost.seconds:.2f}", f"{cost.cpu_seconds:.2f}", f"{cost.memory / 1e6:.0f}", f"{ratio:.1f}x")
        lines.append((name, *numbers, (notes or {}).get(name, "")))
    return aligned({"": max(map(len, rows)), **_COLUMNS}, lines)


def aligned(columns: Mapping[str, int], rows: Sequence[Sequence[str]]) -> list[str]:
    """A line of heads and one per row; columns: head -> width, the first one's texts begin the line, others end there.

    A cell behind the last column is as wide as it is.
    """
    first, *others = columns.values()
    lines = []
    for name, *cells in (tuple(columns), *rows):
        numbers = [f"{cell:>{width}}" for cell, width in zip(cells, others, strict=False)]
        lines.append("  ".join([f"{name:{first}}", *numbers, *cells[len(others) :]]).rstrip())
    return lines


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
