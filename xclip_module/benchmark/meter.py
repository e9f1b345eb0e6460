"""Seconds, CPU seconds and peak memory of a stretch of code."""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

_SAMPLE_SECONDS = 0.01


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
def measured(device: torch.device) -> Iterator[Cost]:
    """Measures its body into the yielded `Cost`; memory is sampled every 10 ms on a CPU."""
    cost, stop = Cost(), threading.Event()
    before = _resident()

    def watch() -> None:
        while not stop.wait(_SAMPLE_SECONDS):
            cost.memory = max(cost.memory, _resident() - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    _settle(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start, cpu = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        _settle(device)
        cost.seconds, cost.cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
        stop.set()
        thread.join()
        if device.type == "cuda":
            cost.memory = torch.cuda.max_memory_allocated(device)


def table(rows: dict[str, Cost], *, against: str, by: str = "seconds", notes: dict[str, str] | None = None) -> str:
    """Aligned lines: name, seconds, CPU seconds, peak memory, how many times cheaper than the row `against`.

    by: what the ratio compares, "seconds" or "cpu_seconds".
    """
    width = max(map(len, rows))
    lines = [f"{'':{width}}  {'seconds':>9}  {'CPU s':>9}  {'peak MB':>8}  {'ratio':>7}"]
    for name, cost in rows.items():
        ratio = getattr(rows[against], by) / getattr(cost, by)
        line = f"{name:{width}}  {cost.seconds:9.2f}  {cost.cpu_seconds:9.2f}  {cost.memory / 1e6:8.0f}  {ratio:6.1f}x"
        lines.append(f"{line}  {(notes or {}).get(name, '')}".rstrip())
    return "\n".join(lines)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
