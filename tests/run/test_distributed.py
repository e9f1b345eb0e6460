"""Shares of one process among several."""

import numpy as np
import torch

from xclip_module.run import distributed


def test_shares_cover_every_item_once():
    for size in (1, 2, 5):
        worlds = [distributed.World(rank, size, torch.device("cpu")) for rank in range(size)]
        shares = [distributed.shard(range(12), world) for world in worlds]
        assert sorted(item for share in shares for item in share) == list(range(12))


def test_runs_of_a_batch_are_those_of_numpys_array_split():
    for count in range(20):
        for size in (1, 2, 3, 7):
            expected = [part.tolist() for part in np.array_split(np.arange(count), size)]
            assert [list(distributed.share(count, rank, size)) for rank in range(size)] == expected
