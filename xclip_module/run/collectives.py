"""Tensors that travel between the processes of a training step.

Every function takes a process group (None = the default one): gloo for tensors on the host, NCCL on GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from xclip_module.run.distributed import World, peer_errors, share

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import ProcessGroup

# Elements that one all-reduce sums: enough to fill the wire, and little beside a model.
_BUCKET = 25_000_000


def gather_rows(tensor: Tensor, counts: Sequence[int], world: World, group: ProcessGroup | None = None) -> Tensor:
    """The rows [sum(counts), ...] of all processes, by rank, on every process; no gradient flows through.

    tensor: [counts[rank], ...] any dtype; same further sizes everywhere.  counts: rows of each rank, 0 is fine.
    Raises PeerError when another process has ended.
    """
    if world.size == 1:
        return tensor
    import torch

    # Every process must send as many rows.
    padded = tensor.new_zeros((max(counts), *tensor.shape[1:]))
    padded[: counts[world.rank]] = tensor.detach()
    # As bytes, since not every backend knows every dtype.
    parts = [torch.empty_like(padded) for _ in counts]
    with peer_errors():
        torch.distributed.all_gather([part.view(torch.uint8) for part in parts], padded.view(torch.uint8), group=group)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def fill_rows(tensor: Tensor, world: World, group: ProcessGroup | None = None) -> None:
    """Copies every process's run of rows (`distributed.share`) of [N, ...] into those of all others, in place.

    Nothing is held beside the tensor, which may be most of the memory. Raises PeerError when another process has ended.
    """
    if world.size == 1:
        return
    import torch

    runs = [share(len(tensor), rank, world.size) for rank in range(world.size)]
    with peer_errors():
        for rank, rows in enumerate(runs):
            if rows:
                torch.distributed.broadcast(tensor[rows.start : rows.stop], src=rank, group=group)


def average_gradients(parameters: Iterable[Tensor], world: World, group: ProcessGroup | None = None) -> None:
    """Replaces every gradient by its mean over all processes, in place; infinity and NaN of one reach all.

    A parameter without gradient stays so where no process has one, and counts as zero where only some have none.
    Call it before `GradScaler.unscale_`, so that all processes skip the same steps. Same parameters, same order
    everywhere. Raises PeerError when another process has ended.
    """
    if world.size == 1:
        return
    import torch

    for bucket in _buckets(_with_gradients(list(parameters), group)):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        with peer_errors():
            torch.distributed.all_reduce(flat, group=group)
        flat /= world.size
        for gradient, mean in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def _with_gradients(parameters: list[Tensor], group: ProcessGroup | None) -> list[Tensor]:
    """Gradients of the parameters that have one in some process; here zero where it is missing."""
    import torch

    if not parameters:
        return []
    counts = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
    with peer_errors():
        torch.distributed.all_reduce(counts, group=group)
    chosen = [parameter for parameter, count in zip(parameters, counts.tolist(), strict=True) if count]
    for parameter in chosen:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in chosen if parameter.grad is not None]


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of gradients of one dtype, of at most `_BUCKET` elements together (or one larger gradient)."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        size = sum(g.numel() for g in bucket)
        if bucket and (size + gradient.numel() > _BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
