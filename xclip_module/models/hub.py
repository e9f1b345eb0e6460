"""Hub names and Hugging Face folders: found locally first, loaded strictly.

transformers fills whatever a checkpoint lacks with random numbers and only logs it; here that is an error.
"""

import contextlib
import json
import logging
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub
from huggingface_hub.errors import LocalEntryNotFoundError

from xclip_module.errors import WeightsError
from xclip_module.interface import Picture
from xclip_module.models.damage import weights_errors
from xclip_module.models.spec import CLIP_MEAN, CLIP_STD, TOWER_NAMES, Tower, TwoTowerSpec

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLE = "openai/clip-vit-base-patch32"
# How long a hub may take to say what it has; without a network its client would retry for minutes.
_PROBE_SECONDS = 10
_FILES = ("*.json", "*.txt", "*.safetensors", "*.bin")
_CLIP_KEYS = ("text_config", "vision_config", "projection_dim", "logit_scale_init_value")

HEAD_FLAG = "--model.head=runs/NAME/head.safetensors of run_linear_probe.py"

log = logging.getLogger(__name__)


def locate(path_or_name: str) -> Path:
    """The file or folder itself, or the local copy of a hub name, downloaded when it is missing and a hub answers.

    Raises WeightsError at once (seconds, not minutes of retries) when it is neither here nor reachable.
    """
    with weights_errors(path_or_name, "no such checkpoint"):
        path = Path(path_or_name).expanduser()
        if path.exists():
            return path
        suffixes = {".pt", ".pth", ".bin", ".safetensors"}
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", path_or_name) or path.suffix in suffixes:
            kinds, attempt = "a file, a folder or a hub name such as org/model", f"--model.weights={EXAMPLE}"
            raise WeightsError("no such checkpoint", path_or_name, f"expected {kinds}", attempt)
        try:
            folder = Path(huggingface_hub.snapshot_download(path_or_name, local_files_only=True))
            if (folder / "config.json").is_file():
                return folder
        except LocalEntryNotFoundError:
            pass
    return _download(path_or_name)


def check_head(path: Path) -> None:
    """Raises WeightsError where there is no such file, as `head.load_head` does, whose import takes seconds."""
    if not path.is_file():
        raise WeightsError("no such head", path, attempt=HEAD_FLAG)


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises WeightsError when it is missing (transformers would invent one) or broken."""
    file = folder / "config.json"
    if not file.is_file():
        attempt = f"ls {shlex.quote(str(folder))}"
        raise WeightsError("no config.json", folder, "a model folder needs one beside its weights", attempt)
    return _read_json(file)


def load_strictly(model_class: Any, folder: Path, attention: str) -> Any:
    """`model_class.from_pretrained` that refuses missing, unexpected and mis-sized tensors, listed as sets."""
    import torch

    with _quiet_transformers(), weights_errors(folder):
        # Mis-sized tensors are let pass here, or the first of them would end the load before the others are known.
        model, report = model_class.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            attn_implementation=attention,
            torch_dtype=torch.float32,
        )
    # A count from 0 that earlier versions of transformers stored as if it were a weight.
    unexpected = {name for name in report["unexpected_keys"] if not name.endswith("position_ids")}
    mismatched = report["mismatched_keys"]
    sizes = {name: f"found {list(stored)}, expected {list(expected)}" for name, stored, expected in mismatched}
    refuse(folder, missing=set(report["missing_keys"]), unexpected=unexpected, sizes=sizes)
    return model.float().eval()


def refuse(path: object, *, missing: set[str], unexpected: set[str], sizes: dict[str, str]) -> None:
    """Raises one WeightsError that lists the sets, or returns when all are empty."""
    parts = [f"{word} {_listed(names)}" for word, names in (("missing", missing), ("unexpected", unexpected)) if names]
    if sizes:
        parts.append(f"mis-sized {_listed({f'{name} {text}' for name, text in sizes.items()})}")
    if parts:
        raise WeightsError("checkpoint does not fit the model", path, "; ".join(parts))


def clip_spec(config: dict[str, Any], folder: Path) -> TwoTowerSpec:
    """The sizes of a Hugging Face CLIP folder."""
    from transformers.models.clip.configuration_clip import CLIPConfig

    full = CLIPConfig(**{k: v for k, v in config.items() if k in _CLIP_KEYS})
    vision, text = full.vision_config, full.text_config
    picture = read_picture(folder, Picture(vision.image_size, CLIP_MEAN, CLIP_STD))
    return TwoTowerSpec(
        vision=_tower(vision),
        text=_tower(text),
        embed=full.projection_dim,
        image=vision.image_size,
        patch=vision.patch_size,
        context=text.max_position_embeddings,
        vocabulary=text.vocab_size,
        mean=picture.mean,
        std=picture.std,
    )


def clip_state(folder: Path, attention: str) -> "dict[str, Tensor]":
    """The tensors of a Hugging Face CLIP folder under our names."""
    from transformers.models.clip.modeling_clip import CLIPModel

    state = load_strictly(CLIPModel, folder, attention).state_dict()
    towers = {
        "vision_model.": "frame_encoder.tower.vision_model.",
        "visual_projection.": "frame_encoder.tower.visual_projection.",
        "text_model.": "text_encoder.tower.text_model.",
        "text_projection.": "text_encoder.tower.text_projection.",
        "logit_scale": "logit_scale",
    }
    return {
        ours + name.removeprefix(theirs): tensor
        for name, tensor in state.items()
        for theirs, ours in towers.items()
        if name.startswith(theirs) and not name.endswith("position_ids")
    }


def read_picture(folder: Path, fallback: Picture) -> Picture:
    """Mean and standard deviation of the checkpoint's own preprocessor, at the size of its tower."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        log.info("%s has no preprocessor_config.json: mean %s, std %s", folder, fallback.mean, fallback.std)
        return fallback
    settings = _read_json(file)
    mean, std = settings.get("image_mean", fallback.mean), settings.get("image_std", fallback.std)
    for colours in (mean, std):
        if len(colours) != 3 or not all(isinstance(value, float | int) for value in colours):
            raise WeightsError("unreadable preprocessor", file, f"found {colours}, expected three numbers", "mend it")
    return Picture(fallback.size, tuple(mean), tuple(std))


def _read_json(file: Path) -> dict[str, Any]:
    with weights_errors(file, f"unreadable {file.name}"):
        values = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise TypeError(f"found {type(values).__name__}, expected names and values")
        return values


def _tower(config: Any) -> Tower:
    return Tower(**{ours: getattr(config, theirs) for ours, theirs in TOWER_NAMES.items()})


def _download(name: str) -> Path:
    folder = f"weights/{name.split('/')[1]}"
    way_out = f"hf download {name} --local-dir {folder} (on a machine with a network), then --model.weights={folder}"
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "TRUE", "YES", "ON"}:
        raise WeightsError("weights not on this machine", name, "HF_HUB_OFFLINE is set", way_out)
    try:
        info = huggingface_hub.HfApi().model_info(name, timeout=_PROBE_SECONDS)
        files = [sibling.rfilename for sibling in info.siblings or ()]
        # A .bin beside safetensors is the same weights twice.
        skipped = ["*.bin"] if any(file.endswith(".safetensors") for file in files) else []
        log.info("downloading %s", name)
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_FILES), ignore_patterns=skipped))
    # The hub's client raises its transport's own classes, which change between its versions.
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise WeightsError("weights not on this machine and no hub answers", name, first[:200], way_out) from error


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Its load report is a table of many lines; `load_strictly` says the same in one."""
    from transformers.utils import logging as reports

    before, has_bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity_error()
    reports.disable_progress_bar()
    try:
        yield
    finally:
        reports.set_verbosity(before)
        if has_bars:
            reports.enable_progress_bar()


def _listed(names: set[str], most: int = 20) -> str:
    shown = ", ".join(sorted(names)[:most])
    return f"{{{shown}, and {len(names) - most} more}}" if len(names) > most else f"{{{shown}}}"
