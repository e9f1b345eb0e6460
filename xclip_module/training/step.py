"""What computes a step of training: the gradients of a whole batch, the same on every process.

U distinct sentences and B clips of the whole batch; m of one forward; W word slots, T frames, H picture side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from xclip_module.interface import Batch, Embeddings
from xclip_module.run import precision
from xclip_module.run.collectives import average_gradients
from xclip_module.run.distributed import World
from xclip_module.training.grad_cache import StepLoss, backward
from xclip_module.training.optim import clamp_logit_scale_
from xclip_module.training.seeds import seed_of


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
            self,
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
