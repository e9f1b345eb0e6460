"""What two processes exchange in a training step."""

import datetime
import os

import pytest
import torch
from torch import distributed
from torch.multiprocessing import spawn

from xclip_module.errors import UserError
from xclip_module.run import collectives
from xclip_module.run.collectives import average_gradients, gather_rows
from xclip_module.run.distributed import World

ALONE = World(0, 1, torch.device("cpu"))
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
# Rows of rank 0 and 1.
COUNTS = [(3, 2), (1, 0), (0, 2), (0, 0)]


def rows_of(counts, dtype, further):
    values = torch.arange(1, sum(counts) * max(1, int(torch.tensor(further).prod())) + 1)
    return (values % 3).reshape(sum(counts), *further).to(dtype)


def with_gradients(*gradients):
    """Parameters of different shapes, in float64 the second; None = no gradient."""
    shapes = ((2, 3), (4,), (), (2,))
    dtypes = (torch.float32, torch.float64, torch.float32, torch.float32)
    parameters = [torch.nn.Parameter(torch.zeros(s, dtype=d)) for s, d in zip(shapes, dtypes, strict=True)]
    for parameter, value in zip(parameters, gradients, strict=True):
        if value is not None:
            parameter.grad = torch.full_like(parameter, value)
    return parameters


def check_gathering(world):
    for counts in COUNTS:
        for dtype in DTYPES:
            for further in ((), (4,), (2, 3)):
                expected = rows_of(counts, dtype, further)
                found = gather_rows(expected.split(counts)[world.rank], counts, world)
                assert found.dtype == dtype
                assert torch.equal(found, expected)


def check_averaging(world):
    """One parameter has gradients on both, one on rank 0 only, one on none; infinity and NaN of rank 1 reach rank 0."""
    for bucket in (1, 7, 1000):
        collectives._BUCKET = bucket
        parameters = with_gradients(*((1.0, 2.0, None, 5.0) if world.is_main else (4.0, None, None, 6.0)))
        average_gradients(iter(parameters), world)
        assert [None if p.grad is None else p.grad.unique().tolist() for p in parameters] == [[2.5], [1], None, [5.5]]
    parameters = with_gradients(*((1.0, 1.0, 1.0, 1.0) if world.is_main else (torch.inf, torch.nan, 1.0, 3.0)))
    average_gradients(parameters, world)
    assert [bool(p.grad.isfinite().all()) for p in parameters] == [False, False, True, True]


def talk(rank, store, last):
    """Everything that two processes must agree on; the second then ends in the middle of a step."""
    world = World(rank, 2, torch.device("cpu"))
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=2,
        timeout=datetime.timedelta(seconds=120),
    )
    check_gathering(world)
    check_averaging(world)
    if not world.is_main:
        os._exit(0)  # as a killed process ends, without a word
    with pytest.raises(UserError, match=r"another process ended.*its own line says why"):
        gather_rows(torch.ones(3), [3, 3], world)
    with pytest.raises(UserError, match="another process ended"):
        average_gradients(with_gradients(1.0, 1.0, 1.0, 1.0), world)
    last.write_text("done")
    distributed.destroy_process_group()


def test_two_processes_gather_average_and_notice_when_one_ends(tmp_path):
    """Uneven and empty shares, every dtype; see the functions above."""
    spawn(talk, (tmp_path / "store", tmp_path / "last"), nprocs=2)
    assert (tmp_path / "last").read_text() == "done"


def test_one_process_keeps_what_it_has():
    rows = torch.ones(3, 2)
    assert gather_rows(rows, [3], ALONE) is rows
    parameters = with_gradients(1.0, None, 2.0, 3.0)
    average_gradients(parameters, ALONE)
    assert [None if p.grad is None else p.grad.unique().tolist() for p in parameters] == [[1], None, [2], [3]]
