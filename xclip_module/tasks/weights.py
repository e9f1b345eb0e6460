"""The configured weights and their tokenizer, for every task."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from xclip_module.config import DataConfig, ModelConfig
from xclip_module.datasets.catalogue import choose_sampling
from xclip_module.errors import WeightsError
from xclip_module.models.hub import locate

if TYPE_CHECKING:
    import torch

    from xclip_module.interface import VideoTextModel
    from xclip_module.models.tokenizer import Tokens

UNTRAINED = "untrained:"
SHIPPED = str(Path(__file__).parents[2] / "data" / "demo" / "model")
# So many sentences that were cut are named, of more the number.
_MOST_CUT = 5

log = logging.getLogger(__name__)


class Origin(NamedTuple):
    """Where a scorer comes from, for the results.

    training, probe: how the weights, or the head, were trained; None = they were not. Their keys are listed in
    `reporting.training_facts` and `reporting.probe_facts`.  settings: what the environment report adds.
    """

    training: dict[str, Any] | None = None
    probe: dict[str, Any] | None = None
    settings: Mapping[str, Any] = MappingProxyType({})


AS_CONFIGURED = Origin()


def announce_weights(section: ModelConfig, data: DataConfig) -> None:
    """Says which weights come next, and warns where they are the demo's and the videos are not.

    To be called before anything imports torch, which takes seconds without a word. Raises WeightsError where there are
    no such weights.
    """
    source = weights_path(section.weights)
    if Path(source).resolve() == Path(SHIPPED) and (data.video or data.name != "demo"):
        attempt = "--model.weights=openai/clip-vit-base-patch32"
        log.warning("%s are the demo's weights: they know drawn pictures only; try: %s", section.weights, attempt)
    if not section.weights.startswith(UNTRAINED):
        locate(source)
    log.info("loading weights %s", section.weights)


def build_model(section: ModelConfig, data: DataConfig, *, seed: int, device: torch.device) -> VideoTextModel:
    """The configured weights on the device; see `announce_weights`.

    seed: of random weights.  data: whose clips decide the frame slots of weights that leave them open.
    """
    from xclip_module.models import load_checkpoint, load_untrained

    source = weights_path(section.weights)
    choices: dict[str, Any] = {
        "family": section.family,
        "header": section.header,
        "max_words": section.max_words,
        "padding": section.padding,
        "pooling": section.pooling,
        "attention": section.attention,
    }
    if section.weights.startswith(UNTRAINED):
        model: Any = load_untrained(Path(source), seed=seed, **choices)
    else:
        # Plain CLIP leaves the number of slots open; then the clip decides.
        frames = choose_sampling(data, clip_frames=0).frames_per_clip
        model = load_checkpoint(source, max_frames=frames, **choices)
    return model.to(device)


def weights_path(weights: str) -> str:
    """File, folder or hub name without the prefix for random weights; the demo's are found from anywhere."""
    name = weights.removeprefix(UNTRAINED)
    return SHIPPED if name == ModelConfig().weights and not Path(name).exists() else name


def tokenizer_path(section: ModelConfig) -> Path:
    """The tokenizer's folder or file: the configured one, or the one beside the weights."""
    path = locate(section.tokenizer or weights_path(section.weights))
    return path.parent if path.is_file() and path.suffix not in {".gz", ".txt"} else path


def tokenise(section: ModelConfig, model: VideoTextModel, texts: Sequence[str]) -> Tokens:
    """Token ids for the model's word slots; what does not fit is named in the log.

    Raises WeightsError when the tokenizer knows more than the weights.
    """
    from xclip_module.models import load_tokenizer

    path = tokenizer_path(section)
    tokens = load_tokenizer(path)(list(texts), model.text_slots)
    largest = int(tokens.input_ids.max())
    if largest >= model.vocabulary:
        why = f"ids up to {largest}, the weights know {model.vocabulary}"
        raise WeightsError("tokenizer and weights do not fit", path, why, "--model.tokenizer=FOLDER of these weights")
    for text, rest in list(tokens.cut.items())[:_MOST_CUT]:
        log.warning("query too long for %d tokens, left out at its end: “%s” (of “%s”)", model.text_slots, rest, text)
    if len(tokens.cut) > _MOST_CUT:
        log.warning("%d of %d sentences are too long for %d tokens", len(tokens.cut), len(set(texts)), model.text_slots)
    return tokens
