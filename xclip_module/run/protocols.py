"""Protocols: named presets, a few values each with their source, below the user's file and the command line."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from xclip_module.config import nearest
from xclip_module.errors import ConfigError


class Protocol(NamedTuple):
    """A preset's values by dotted key, and where they come from."""

    source: str
    values: Mapping[str, Any]


def _released(script: str, data: str, patch: int, *, epochs: int, batch: int, slots: int = 12) -> Protocol:
    """X-CLIP's own script; `slots` frames, and of paragraphs as many words."""
    # Paragraphs over minutes (DiDeMo, ActivityNet) have 64 slots of either kind, single sentences 12 frames, 32 words.
    return Protocol(
        f"X-CLIP (Ma et al. 2022), github.com/xuguohai/X-CLIP scripts/{script}",
        {
            "data.name": data,
            "data.frames_per_clip": slots,
            "model.weights": f"openai/clip-vit-base-patch{patch}",
            "model.header": "transformer",
            "model.max_words": 32 if slots == 12 else slots,
            "finetune.loss": "infonce",
            "finetune.optimizer": "bertadam",
            "finetune.weight_decay": 0.2,
            "finetune.lr": 1e-4,
            "finetune.pretrained_lr_scale": 1e-3,
            "finetune.warmup": 0.1,
            "finetune.max_grad_norm": 1.0,
            "finetune.freeze_layers": 0,
            "finetune.drop_last": True,
            "finetune.epochs": float(epochs),
            "finetune.batch_size": batch,
            "finetune.crop_scale": 1.0,
            "finetune.colour": 0.0,
            "run.seed": 42,
        },
    )


# Per set: name here, epochs, slots, and the global batches of ViT-B/32 and B/16.
_SCRIPTS: dict[str, tuple[str, int, int, tuple[int, int]]] = {
    "msrvtt": ("msrvtt-9k", 5, 12, (300, 80)),
    "msvd": ("msvd", 5, 12, (300, 80)),
    "lsmdc": ("lsmdc", 5, 12, (300, 80)),
    "didemo": ("didemo", 20, 64, (64, 16)),
    "activitynet": ("activitynet", 20, 64, (112, 32)),
}

PROTOCOLS = {
    **{
        f"xclip_{name}_vit{patch}": _released(
            f"run_xclip_{'actnet' if name == 'activitynet' else name}_vit{patch}.sh",
            data,
            patch,
            epochs=epochs,
            batch=batch,
            slots=slots,
        )
        for name, (data, epochs, slots, batches) in _SCRIPTS.items()
        for patch, batch in zip((32, 16), batches, strict=True)
    },
    "clip4clip_mmaction2_msrvtt9k_vit32": Protocol(
        "CLIP4Clip in MMAction2 1.x, configs/retrieval/clip4clip/"
        "clip4clip_vit-base-p32-res224-clip-pre_8xb16-u12-5e_msrvtt-9k-rgb.py",
        {
            "data.name": "msrvtt-9k-mmaction2",
            "data.frames_per_clip": 12,
            "data.crop": "mmaction2",
            "model.weights": "openai/clip-vit-base-patch32",
            "model.family": "clip4clip",
            "model.pooling": "mmaction2",
            "model.max_words": 77,
            "finetune.loss": "infonce",
            "finetune.optimizer": "mmaction2",
            "finetune.weight_decay": 0.05,
            "finetune.lr": 1e-5,
            "finetune.pretrained_lr_scale": 1.0,
            "finetune.warmup": 0.1,
            "finetune.max_grad_norm": 0.0,
            "finetune.max_logit_scale": 1e9,
            "finetune.freeze_layers": 0,
            "finetune.epochs": 5.0,
            "finetune.batch_size": 128,
            "finetune.crop_scale": 1.0,
            "finetune.colour": 0.0,
        },
    ),
    "cholec80_xclip_vitb32": Protocol(
        "ours: X-CLIP (Ma et al. 2022) scoring on OpenAI's CLIP ViT-B/32, split as in Funke et al.",
        {
            "data.name": "cholec80",
            "data.splits": "32/8/40",
            "data.clip_seconds": 16.0,
            "data.frames_per_clip": 16,
            "data.stride_seconds": 4.0,
            "model.weights": "openai/clip-vit-base-patch32",
        },
    ),
    "cholec80_msxclip_vitb32": Protocol(
        "the thesis baseline's weights (Ni et al. 2022), with the 8 frames that they take instead of 16",
        {
            "data.name": "cholec80",
            "data.splits": "32/8/40",
            "data.clip_seconds": 16.0,
            "data.frames_per_clip": 8,
            "data.stride_seconds": 4.0,
            "model.weights": "microsoft/xclip-base-patch32",
        },
    ),
}


def find_protocol(name: str) -> Mapping[str, Any]:
    """The values of a protocol; none for an empty name. Raises ConfigError naming the nearest."""
    if not name:
        return {}
    if name not in PROTOCOLS:
        raise ConfigError(f"unknown protocol {name}", why=nearest(name, PROTOCOLS))
    return PROTOCOLS[name].values


def describe_protocol(name: str) -> str:
    """A protocol that exists in one line: its source and its values."""
    protocol = PROTOCOLS[name]
    values = ", ".join(f"{key}={value}" for key, value in protocol.values.items())
    return f"protocol {name}, from {protocol.source}: {values}"
