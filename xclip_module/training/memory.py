"""How many clips fit into one forward and backward pass."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch

from xclip_module.errors import MemoryShortage

# Of the machine's free memory; the rest is for loading and for what grows later.
_CPU_SHARE = 0.7


def find_micro_batch(trial: Callable[[int], None], most: int, device: torch.device) -> int:
    """The largest micro-batch up to `most` for which `trial` ends well.

    trial: a whole step's forward and backward in micro-batches of the given size. On CUDA it is tried at `most`, then
    at half of it, and so on. On a CPU, where too much memory kills the process instead of raising an error, the sizes
    1 and 2 are tried and the growth from one to the other is carried on.
    Raises MemoryShortage where not even one clip fits.
    """
    return _by_growth(trial, most) if device.type == "cpu" else _by_halves(trial, most)


def _by_halves(trial: Callable[[int], None], most: int) -> int:
    size = most
    while True:
        try:
            trial(size)
            return size
        except torch.OutOfMemoryError as error:
            if size == 1:
                attempt = "--finetune.activation_checkpointing=true, or fewer frames a clip"
                raise MemoryShortage("one clip does not fit", "", str(error).split(".")[0], attempt) from error
        torch.cuda.empty_cache()
        size = (size + 1) // 2


def _by_growth(trial: Callable[[int], None], most: int) -> int:
    peaks = []
    for size in (1, 2)[:most]:
        # The peak starts again from what is in use now; where that is forbidden, it is the peak of all so far.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        trial(size)
        peaks.append(_kilobytes("/proc/self/status", "VmHWM"))
    if len(peaks) < 2:
        return 1
    growth = max(peaks[1] - peaks[0], 1)
    free = _CPU_SHARE * _kilobytes("/proc/meminfo", "MemAvailable")
    return max(1, min(most, 1 + int(free / growth)))


def _kilobytes(file: str, name: str) -> int:
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
