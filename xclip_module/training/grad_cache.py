"""What computes a step: exact gradients of a large contrastive batch in micro-batches, the same on every process.

U distinct sentences and B clips of the whole batch; u and b of one process, m of one chunk; W word slots, T frames,
L tokens, D width, H picture side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from xclip_module.interface import Batch, Embeddings
from xclip_module.run import precision
from xclip_module.run.collectives import average_gradients, gather_rows
from xclip_module.run.distributed import World, share
from xclip_module.training.objectives import LOSSES, accuracy, floor
from xclip_module.training.optim import clamp_logit_scale_
from xclip_module.training.seeds import seed_of

Forward = Callable[[], Embeddings]


class StepLoss(NamedTuple):
    """One step in numbers, the same on every process.

    loss: of the whole batch, unscaled; NaN and infinity are passed on, the caller names the clips.
    floor: nats under which the loss cannot fall on this batch.
    accuracy: share of the clips whose closest sentence holds.
    """

    loss: float
    floor: float
    accuracy: float


@dataclass(frozen=True)
class StepMaker:
    """A model in training and how a step of it is computed.

    model: an `nn.Module` that is a `VideoTextModel`.  to_pixels: uint8 frames [m, T, 3, H, H] -> what `encode_video`
    takes, on the device.
    precision: of the towers, as `precision.choose` gives it.  loss: a name of `objectives.LOSSES`.
    micro_batch_size: most texts or clips in a forward, 0 = all of a share.  seed: of the run.
    scaler: of the loss.  logit_scale: the parameter whose exponential stays at `max_logit_scale` or below.
    group: of the processes inside a step, None = the default one.
    """

    model: Any
    to_pixels: Callable[[Tensor], Tensor]
    precision: str
    loss: str
    micro_batch_size: int
    seed: int
    scaler: torch.amp.GradScaler
    logit_scale: Tensor
    max_logit_scale: float
    world: World
    group: dist.ProcessGroup | None = None

    def gradients(self, batch: Batch, step: int) -> StepLoss:
        """Adds the scaled gradient of the batch's loss to `.grad` of every parameter; its dropout is that of `step`."""
        loss = backward(
            batch,
            self,  # in the model's place: its towers, in their precision
            loss=self.loss,
            micro_batch_size=self.micro_batch_size,
            world=self.world,
            scale=self.scaler.scale,
            seed=seed_of(self.seed, step, bits=63),
            group=self.group,
        )
        # While they are still scaled: an overflow of one process reaches all before anybody looks for one, so that all
        # of them skip the same steps.
        average_gradients(self.model.parameters(), self.world, self.group)
        return loss

    def clamp_(self) -> None:
        """Takes the logit scale back into its bounds after an update of the weights."""
        clamp_logit_scale_(self.logit_scale, self.max_logit_scale)

    def encode_text(self, input_ids: Tensor, mask: Tensor) -> Embeddings:
        """Texts from ids [m, W] and mask [m, W], the tower in its precision."""
        with precision.autocast(self.precision, self.world.device):
            return self.model.encode_text(input_ids, mask)

    def encode_video(self, pixels: Tensor, mask: Tensor) -> Embeddings:
        """Clips from pixels [m, T, 3, H, H] and mask [m, T], the tower in its precision."""
        with precision.autocast(self.precision, self.world.device):
            return self.model.encode_video(pixels, mask)

    def similarity(self, text: Embeddings, video: Embeddings) -> Tensor:
        """Logits [U, B] in float32, outside of autocast."""
        return self.model.similarity(text, video)


def backward(
    batch: Batch,
    model: Any,
    *,
    loss: str,
    micro_batch_size: int,
    world: World,
    scale: Callable[[Tensor], Tensor],
    seed: int,
    group: dist.ProcessGroup | None = None,
) -> StepLoss:
    """Adds to `.grad` what, AVERAGED over the processes, is the gradient of the whole batch's loss, exactly.

    Right for encoders, head matrices and logit scale alike (summing the losses of micro-batches is another loss: fewer
    negatives). Where a process has one chunk of a kind, its first forward keeps the graph and there is no second.

    model: a `VideoTextModel`, whose towers see one chunk at a time, under the autocast that the caller wants, with
    `to_pixels`, as `StepMaker` is one; loss, micro_batch_size, world and group are described there.
    scale: `GradScaler.scale`, or the identity.  seed: of this step; every chunk's dropout is drawn from (seed, rank,
    kind, number of the chunk) in both of its forwards, so torch's global generators are reset (other draws belong into
    generators of their own). The clips of rank r must be `share(B, r, world.size)`.
    Raises PeerError when another process has ended.
    Source: GradCache (Gao et al. 2021) algorithm 1. Differs: texts are shared over the processes too, and gathered
    gradients are multiplied by their number, so that the mean fits encoders and head alike (X-CLIP's AllGather leaves
    the encoders 1/size of theirs).
    """
    sides = [_texts(batch, model, world), _clips(batch, model, world)]
    passes = [_passes(side, micro_batch_size, seed=seed, rank=world.rank) for side in sides]
    # 1. Embeddings of all chunks, without graph, so that the activations of one chunk are in memory at a time.
    embedded = [_first_pass(forwards) for forwards in passes]
    leaves = [_gather(parts, side.shares, world, group) for parts, side in zip(embedded, sides, strict=True)]
    # 2. Loss and gradient on the embeddings of the whole batch; the head's own parameters have all of theirs here.
    torch.manual_seed(seed_of(seed, 0, "head", 0))
    result = _head(model.similarity(*leaves), batch, loss=loss, scale=scale)
    # 3. Every chunk anew, with graph and the same dropout, and its rows' gradient through it.
    for forwards, parts, leaf, side in zip(passes, embedded, leaves, sides, strict=True):
        _second_pass(forwards, parts, _gradients(leaf, side.shares[world.rank], world))
    return result


class _Side(NamedTuple):
    """Texts or clips.

    rows: arguments of `encode`, this process's rows of each; one made-up row where `shares[rank]` is empty.
    shares: which rows of the whole batch are whose.
    """

    kind: str
    encode: Callable[..., Embeddings]
    rows: tuple[Tensor, ...]
    shares: list[range]


def _texts(batch: Batch, model: Any, world: World) -> _Side:
    shares = [share(len(batch.input_ids), rank, world.size) for rank in range(world.size)]
    # A process without a sentence embeds another's, so that all of them gather the same fields at the same time.
    mine = list(shares[world.rank]) or [0]
    rows = batch.input_ids[mine].to(world.device), batch.mask[mine].to(world.device)
    return _Side("text", model.encode_text, rows, shares)


def _clips(batch: Batch, model: Any, world: World) -> _Side:
    shares = [share(len(batch.sentences), rank, world.size) for rank in range(world.size)]
    mine, expected = range(batch.start, batch.start + len(batch.frames)), shares[world.rank]
    # Empty ranges are equal wherever they start.
    assert mine == expected, f"rank {world.rank} has clips {mine}, not {expected}"

    def encode(frames: Tensor, shown: Tensor) -> Embeddings:
        pixels, mask = model.to_pixels(frames), shown.to(world.device, non_blocking=True)
        # Asked of the batch, which lies on the CPU: a device need not be waited for.
        if not shown.all():
            pixels = pixels.masked_fill(~mask[:, :, None, None, None], 0.0)
        return model.encode_video(pixels, mask)

    frames = batch.frames if mine else batch.frames.new_zeros((1, *batch.frames.shape[1:]))
    shown = batch.shown if mine else batch.shown.new_ones((1, *batch.shown.shape[1:]))
    return _Side("clip", encode, (frames, shown), shares)


def _passes(side: _Side, size: int, *, seed: int, rank: int) -> list[Forward]:
    """One forward for each chunk, which gives the same embeddings whenever it is called."""

    def forward(number: int, *chunk: Tensor) -> Embeddings:
        torch.manual_seed(seed_of(seed, rank, side.kind, number))
        return side.encode(*chunk)

    chunks = zip(*(rows.split(size or len(rows)) for rows in side.rows), strict=True)
    return [partial(forward, number, *chunk) for number, chunk in enumerate(chunks)]


def _first_pass(forwards: list[Forward]) -> list[Embeddings]:
    """Every chunk's embeddings; with graph where there is no other chunk to make room for."""
    with torch.set_grad_enabled(len(forwards) == 1):
        return [forward() for forward in forwards]


def _gather(parts: list[Embeddings], shares: list[range], world: World, group: dist.ProcessGroup | None) -> Embeddings:
    """The whole batch's embeddings as leaves of a graph of their own."""
    counts = [len(rows) for rows in shares]
    # Cut to the count: the made-up row of an empty share belongs to nobody's batch.
    mine = (torch.cat([part.detach() for part in field])[: counts[world.rank]] for field in zip(*parts, strict=True))
    pooled, tokens, mask = (gather_rows(rows, counts, world, group) for rows in mine)
    return Embeddings(pooled.requires_grad_(), tokens.requires_grad_(), mask)


def _head(logits: Tensor, batch: Batch, *, loss: str, scale: Callable[[Tensor], Tensor]) -> StepLoss:
    """Sends the loss's gradient into the head's parameters and the leaves."""
    relation = [part.to(logits.device) for part in (batch.sentences, batch.positives, batch.unknown)]
    value = LOSSES[loss](logits, *relation)
    scale(value).backward()
    return StepLoss(value.item(), floor(loss, *relation), accuracy(logits.detach(), *relation))


def _gradients(leaf: Embeddings, mine: range, world: World) -> list[Tensor | None]:
    """Of this process's pooled and token rows; a zero row for a made-up one, None where no head reads it."""
    gradients: list[Tensor | None] = []
    for field in (leaf.pooled, leaf.tokens):
        if field.grad is None:
            gradients.append(None)
        else:
            # A process sends on no rows but its own, so the encoders' mean over the processes would be 1/size of their
            # sum; the head's gradient is whole on every process, and so is its mean.
            rows = field.grad[mine.start : mine.stop] * world.size
            gradients.append(rows if mine else field.grad.new_zeros((1, *field.shape[1:])))
    return gradients


def _second_pass(forwards: list[Forward], embedded: list[Embeddings], gradients: list[Tensor | None]) -> None:
    start = 0
    for forward in forwards:
        # Nothing of a chunk is held here while the next is embedded.
        start += _send(embedded.pop() if len(forwards) == 1 else forward(), gradients, start)


def _send(part: Embeddings, gradients: list[Tensor | None], start: int) -> int:
    """Sends the part's rows of the gradients through its graph; gives their number."""
    rows = slice(start, start + len(part.pooled))
    fields = zip((part.pooled, part.tokens), gradients, strict=True)
    pairs = [(field, grad[rows]) for field, grad in fields if grad is not None and field.requires_grad]
    if pairs:
        torch.autograd.backward([field for field, _ in pairs], [gradient for _, gradient in pairs])
    return len(part.pooled)
