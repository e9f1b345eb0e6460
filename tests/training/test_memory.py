"""How many clips fit: halved until a step goes well, on a CPU carried on from the growth of two."""

from pathlib import Path

import pytest
import torch

from xclip_module.errors import MemoryShortage
from xclip_module.training.memory import find_micro_batch


def test_auto_halves_until_a_step_fits(monkeypatch):
    def trial(size, most=5):
        tried.append(size)
        if size > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    tried = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert find_micro_batch(trial, 33, torch.device("cuda")) == 5
    assert tried == [33, 17, 9, 5]
    with pytest.raises(MemoryShortage, match="one clip does not fit.*activation_checkpointing"):
        find_micro_batch(lambda size: trial(size, 0), 4, torch.device("cuda"))


def test_auto_on_a_cpu_carries_the_growth_on():
    found = find_micro_batch(lambda size: torch.ones(size * 100_000_000).sum(), 10_000, torch.device("cpu"))
    free = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvail" in line)
    assert found == pytest.approx(0.7 * free / 400_000, rel=0.3)
