"""One step of the optimizer: ours beside the plain loop over transformers' CLIP, same shapes, one run.

B clips of a step, m of one forward, T frames, W words, H picture side, U sentences of a step.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPConfig, CLIPModel

from xclip_module.benchmark.meter import Cost, apart, measured, table
from xclip_module.benchmark.models import vit_b
from xclip_module.features.encoding import to_pixels
from xclip_module.interface import Batch, Video
from xclip_module.models.parameters import checkpoint_activations_, logit_scale
from xclip_module.run import precision
from xclip_module.run.distributed import World
from xclip_module.training.batches.pairs import PairPlan, PairSet
from xclip_module.training.grad_cache import StepMaker

_WORDS, _SIDE, _VOCABULARY = 32, 224, 49408
_SMALL, _FRAMES = 4, 4
# Float32 on both sides: what is compared is the way, not the number format.
_PRECISIONS = {"cpu": "fp32", "cuda": "fp16"}


def run(device: torch.device, *, clips: int, patch: int) -> list[str]:
    """Seconds and peak memory, above model and optimizer, of every way; each in a process of its own."""
    plain, naive = f"transformers loop, batch {_SMALL}", f"transformers loop, {clips} in {_SMALL}s (another loss)"
    small, cached = f"ours, batch {_SMALL}", f"ours, {clips} in {_SMALL}s"
    ways = {
        plain: (_plain, _SMALL, False),
        naive: (_plain, clips, False),
        small: (_ours, _SMALL, False),
        cached: (_ours, clips, False),
        f"{cached}, checkpointed": (_ours, clips, True),
    }
    rows, notes = {}, {}
    for name, (make, count, is_checkpointed) in ways.items():
        rows[name], loss = apart(_measure, make, count, is_checkpointed, patch, device)
        notes[name] = f"loss {loss:.4f}"
    growth = rows[cached].memory / rows[small].memory
    return [
        f"train: ViT-B/{patch}, {_FRAMES} frames of {_SIDE} px, {_WORDS} words, one step with AdamW on {device}",
        *table(rows, against=naive, notes=notes),
        f"peak memory of {clips} in {_SMALL}s against {_SMALL}: {growth:.2f}x",
        "a cached step embeds every clip twice: 4/3 of the arithmetic of one whole forward and backward",
        *choice_of_pairs(),
    ]


def choice_of_pairs(*, videos: int = 9000, sentences: int = 20, batch: int = 300, steps: int = 20) -> list[str]:
    """Seconds of choosing the pairs of so many steps and who matches whom in them; as large as MSR-VTT's 9k split."""
    owner = np.repeat(np.arange(videos), sentences)
    every = tuple(Video(f"video{number}", Path(), "train") for number in range(videos))
    training = PairSet(every, ("",) * len(owner), owner, owner, np.arange(len(owner)))
    plain, rows = "order drawn anew each step, loops", {}
    with measured() as rows[plain]:
        expected = [_match(training, PairPlan(training, batch_size=batch, seed=0), step) for step in range(steps)]
    with measured() as rows["ours"]:
        plan = PairPlan(training, batch_size=batch, seed=0)
        matches = [plan.positives(plan.samples(step)).positives for step in range(steps)]
    same = sum(map(np.array_equal, expected, matches))
    return [
        f"the {batch} pairs of {steps} steps of {len(owner)} pairs, and who matches whom:",
        *table(rows, against=plain),
        f"the same matches in {same} of {steps} steps",
    ]


def _match(training: PairSet, plan: PairPlan, step: int) -> np.ndarray:
    """[U, B] which sentence of a step is of which clip's video, one after the other."""
    samples = plan.samples(step)
    sentences = dict.fromkeys(sample.sentence for sample in samples)
    video_of = [training.videos[training.class_of[sentence]].id for sentence in sentences]
    return np.array([[name == sample.video for sample in samples] for name in video_of])


def _measure(make: Any, clips: int, is_checkpointed: bool, patch: int, device: torch.device) -> tuple[Cost, float]:
    batch = _batch(clips)
    model, step = make(patch, device)
    if is_checkpointed:
        checkpoint_activations_(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # its moments are there before the measurement, as in every step but the first
    optimizer.zero_grad(set_to_none=True)
    with measured(device) as cost:
        loss = step(batch)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return cost, loss


def _ours(patch: int, device: torch.device) -> tuple[Any, Any]:
    model = vit_b(patch, frames=_FRAMES).to(device).train()
    maker = StepMaker(
        model=model,
        to_pixels=lambda frames: to_pixels(frames, model.picture, device),
        precision=_PRECISIONS[device.type],
        loss="multi_positive",
        micro_batch_size=_SMALL,
        seed=0,
        scaler=torch.amp.GradScaler(device.type, enabled=False),
        logit_scale=logit_scale(model),
        max_logit_scale=100.0,
        world=World(0, 1, device),
    )
    return model, lambda batch: maker.gradients(batch, 0).loss


def _plain(patch: int, device: torch.device) -> tuple[Any, Any]:
    """What a short script does: mean of CLIP's frame features, cross-entropy within each micro-batch, losses added."""
    vision = {"patch_size": patch, "image_size": _SIDE}
    model = CLIPModel(CLIPConfig(vision_config=vision, projection_dim=512)).to(device).train()

    def step(batch: Batch) -> float:
        parts = range(0, len(batch.frames), _SMALL)
        total = 0.0
        for start in parts:
            part = slice(start, start + _SMALL)
            pixels = batch.frames[part].to(device).float() / 255
            with precision.autocast(_PRECISIONS[device.type], device):
                video = model.get_image_features(pixel_values=pixels.flatten(0, 1)).pooler_output
                text = model.get_text_features(input_ids=batch.input_ids[part].to(device)).pooler_output
            video = torch.nn.functional.normalize(video.float().unflatten(0, pixels.shape[:2]).mean(1), dim=-1)
            logits = model.logit_scale.exp() * torch.nn.functional.normalize(text.float(), dim=-1) @ video.T
            own = torch.arange(len(logits), device=device)
            loss = torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)
            loss = loss / 2 / len(parts)
            loss.backward()
            total += loss.item()
        return total

    return model, step


def _batch(clips: int) -> Batch:
    """Random pixels and sentences, each clip its own."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, _VOCABULARY - 2, (clips, _WORDS), generator=generator)
    ids[:, 0], ids[:, -1] = _VOCABULARY - 2, _VOCABULARY - 1
    own = torch.eye(clips, dtype=torch.bool)
    return Batch(
        frames=torch.randint(0, 256, (clips, _FRAMES, 3, _SIDE, _SIDE), generator=generator, dtype=torch.uint8),
        shown=torch.ones(clips, _FRAMES, dtype=torch.bool),
        start=0,
        input_ids=ids,
        mask=torch.ones_like(ids, dtype=torch.bool),
        sentences=torch.arange(clips),
        positives=own,
        unknown=torch.zeros_like(own),
        names=("random",) * clips,
    )
