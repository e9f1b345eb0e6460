"""`load_checkpoint`: any weights to a model in eval mode, strictly."""

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import xclip_module.models.hub as hub
import xclip_module.models.official as official
from xclip_module.errors import ConfigError, WeightsError
from xclip_module.interface import Picture, VideoTextModel
from xclip_module.models.damage import weights_errors
from xclip_module.models.files import read_stored
from xclip_module.models.ms_xclip import MicrosoftXClip
from xclip_module.models.saving import FORMAT
from xclip_module.models.similarity import CrossEncoder
from xclip_module.models.spec import CLIP4CLIP, MMACTION2, Tower, TwoTowerSpec
from xclip_module.models.temporal import TemporalTransformer
from xclip_module.models.two_tower import TwoTower
from xclip_module.sections import AUTO

# What the released scripts use: --cross_num_hidden_layers.
_HEADER_LAYERS = 4
# What the microsoft/xclip-* checkpoints were trained with, according to their preprocessor files.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

log = logging.getLogger(__name__)


def load_checkpoint(
    path_or_name: str | Path,
    *,
    family: str = AUTO,
    header: str = AUTO,
    max_words: int = 0,
    max_frames: int = 0,
    padding: str = AUTO,
    pooling: str = AUTO,
    attention: str = "sdpa",
) -> VideoTextModel:
    """The model of a checkpoint, in eval mode, float32, on the CPU; family and sizes come from the tensors.

    path_or_name: a state dict with the released names of X-CLIP (Ma et al. 2022) or CLIP4Clip (Luo et al. 2022), a
        checkpoint of MMAction2's CLIP4Clip, an OpenAI CLIP .pt (TorchScript or plain), a Hugging Face CLIP or X-CLIP
        (Ni et al. 2022) folder or hub name, or a folder that `save_model` wrote. fp16 or fp32; .bin, .pt, .pth,
        .safetensors. Nothing in a file is executed.
    family, header: for plain CLIP weights, which leave them open: xclip and mean. An untrained temporal transformer
        only adds noise to CLIP's frames, so it is built on request only (then initialised from CLIP's text tower, as
        released). A checkpoint that has its own refuses another.
    max_words, max_frames: slots W and F of the learned matrices where the weights leave them open (0 = 32 and 12).
    padding: "official" lets empty slots take part in the similarity, as released; "masked" keeps them out; "auto" =
        what the checkpoint says, official where it says nothing.
    pooling: "clip4clip" averages normalised frames, "mmaction2" raw ones; "auto" = mmaction2 for files of MMEngine and
        adapters, clip4clip for all others. The tensors of a mean header fit both: name it where the file has lost its
        `meta`. With plain CLIP weights "mmaction2" makes the family clip4clip, and "transformer" MMAction2's adapter.
    attention: kernel of the towers by transformers' name: sdpa, eager, flash_attention_2.

    Raises WeightsError when the file is damaged, or lists missing, unexpected and mis-sized tensors as sets.
    """
    check_attention(attention)
    path = hub.locate(str(path_or_name))
    wishes = _Wishes(family, header, max_words, max_frames, padding, pooling)
    with weights_errors(path):
        return (_from_folder if path.is_dir() else _from_file)(path, wishes, attention).eval()


def load_untrained(
    folder: Path,
    *,
    seed: int,
    family: str = AUTO,
    header: str = AUTO,
    max_words: int = 0,
    padding: str = AUTO,
    pooling: str = AUTO,
    attention: str = "sdpa",
) -> TwoTower:
    """Random weights, drawn from `seed`, of the shape that the folder's config.json describes.

    Raises WeightsError for a folder that describes none, or another than family, header and words ask for.
    """
    check_attention(attention)
    wishes = _Wishes(family, header, max_words, padding=padding, pooling=pooling)
    # Forked: the caller's random numbers go on as if no model had been drawn.
    with weights_errors(folder), torch.random.fork_rng(devices=[]):
        config = hub.read_config(folder)
        if config.get("format") != FORMAT:
            lack, attempt = f"config.json lacks format {FORMAT}", "--model.weights=untrained:data/demo/model"
            raise WeightsError("untrained: needs one of our model folders", folder, lack, attempt)
        spec = wishes.confirm(_spec_from_json(config.get("spec", {}), folder), folder)
        torch.manual_seed(seed)
        log.warning("weights of %s are untrained (random): expect chance", folder)
        return TwoTower(spec, attention).eval()


def check_attention(attention: str) -> None:
    """Raises ConfigError for a kernel whose package is not here; transformers would only say so in a forward."""
    if attention != "flash_attention_2":
        return
    from transformers.utils import is_flash_attn_2_available

    if not is_flash_attn_2_available():
        need = "it needs a GPU and the package flash-attn; sdpa has flash kernels too"
        raise ConfigError("model.attention=flash_attention_2", why=need, attempt="--model.attention=sdpa")


@dataclasses.dataclass(frozen=True)
class _Wishes:
    """What the caller asked for beside the tensors."""

    family: str = AUTO
    header: str = AUTO
    words: int = 0
    frames: int = 0
    padding: str = AUTO
    pooling: str = AUTO

    def confirm(self, spec: TwoTowerSpec, path: object) -> TwoTowerSpec:
        """The spec of a checkpoint that decides for itself; raises WeightsError when it contradicts the wish."""
        # Nothing that clip4clip learned depends on the number of words.
        words = spec.words if spec.family == "xclip" else self.words or spec.words
        has = {"family": spec.family, "header": spec.header, "max_words": words, "pooling": spec.pooling}
        self._refuse_others(has, path)
        masked = spec.masked if self.padding == AUTO else self.padding == "masked"
        return self._checked(spec._replace(words=words, masked=masked), path)

    def refuse_all(self, path: object) -> None:
        """Raises WeightsError for any wish: `ms-xclip` leaves nothing open."""
        self._refuse_others(dict.fromkeys(("header", "max_words", "pooling"), "its own") | {"family": "ms-xclip"}, path)
        self._refuse_padding("ms-xclip", path)

    def _refuse_others(self, has: Mapping[str, object], path: object) -> None:
        wishes = {"family": self.family, "header": self.header, "max_words": self.words, "pooling": self.pooling}
        for key, wish in wishes.items():
            if wish not in (AUTO, 0, has[key]):
                attempt = f"--model.{key}={0 if key == 'max_words' else AUTO}"
                raise WeightsError(f"checkpoint of another {key}", path, f"found {has[key]}, asked for {wish}", attempt)

    def _refuse_padding(self, family: str, path: object) -> None:
        if self.padding != AUTO and family != "xclip":
            raise WeightsError("padding is a choice of xclip only", path, f"found {family}", "--model.padding=auto")

    def _checked(self, spec: TwoTowerSpec, path: object) -> TwoTowerSpec:
        self._refuse_padding(spec.family, path)
        if self.words > spec.context:
            words = f"max_words={self.words}, its text tower takes {spec.context}"
            raise WeightsError("more words than the checkpoint takes", path, words, "--model.max_words=0")
        return spec

    def complete(self, spec: TwoTowerSpec, path: object) -> TwoTowerSpec:
        """The spec of plain CLIP weights, which leave family, header and slots open."""
        header = "mean" if self.header == AUTO else self.header
        is_mmaction2 = self.pooling == MMACTION2
        if is_mmaction2:
            if self.family == "xclip" or header not in ("mean", "transformer"):
                rule, wish = "MMAction2 has clip4clip with mean or transformer", f"asked for {self.family}, {header}"
                raise WeightsError(rule, path, wish, "--model.pooling=auto")
            spec = official.mmaction2_spec(spec)
        if self.header == AUTO:
            log.info("plain CLIP weights: mean header, since an untrained temporal transformer only adds noise")
        completed = spec._replace(
            family=("clip4clip" if is_mmaction2 else "xclip") if self.family == AUTO else self.family,
            header=header,
            header_layers=_HEADER_LAYERS if header in ("transformer", "tight") else 0,
            words=self.words or spec.words,
            frames=self.frames or spec.frames,
            masked=self.padding == "masked",
        )
        return self._checked(completed, path)


def _from_file(path: Path, wishes: _Wishes, attention: str) -> TwoTower:
    state, settings = read_stored(path)
    # Trained checkpoints keep CLIP under this prefix, beside their header and head; plain CLIP has no prefix.
    if any(name.startswith("clip.") for name in state):
        spec = _with_pooling(official.infer_spec(state, path), settings, wishes.pooling, path)
        return _from_official(state, wishes.confirm(spec, path), path, attention)
    # OpenAI's archive has three integers beside the weights.
    bookkeeping = {"input_resolution", "context_length", "vocab_size"}
    state = {f"clip.{name}": tensor for name, tensor in state.items() if name not in bookkeeping}
    return _from_official(
        state, wishes.complete(official.infer_spec(state, path), path), path, attention, is_plain=True
    )


def _with_pooling(spec: TwoTowerSpec, settings: str | None, wish: str, path: object) -> TwoTowerSpec:
    """The spec with what no tensor tells: CLIP4Clip's mean header and MMAction2's have the same names and sizes."""
    if spec.has_adapter:
        return official.mmaction2_spec(spec)._replace(header_heads=official.adapter_heads(settings or "", path))
    if (spec.family, spec.header) == ("clip4clip", "mean") and (settings is not None or wish == MMACTION2):
        return official.mmaction2_spec(spec)
    return spec


def _from_folder(folder: Path, wishes: _Wishes, attention: str) -> TwoTower | MicrosoftXClip:
    config = hub.read_config(folder)
    if config.get("format") == FORMAT:
        spec = wishes.confirm(_spec_from_json(config.get("spec", {}), folder), folder)
        return _from_official(read_stored(folder / "model.safetensors").tensors, spec, folder, attention)
    if config.get("model_type") == "clip":
        model = TwoTower(wishes.complete(hub.clip_spec(config, folder), folder), attention)
        _load_open(model, hub.clip_state(folder, attention))
        return model
    if config.get("model_type") == "xclip":
        from transformers.models.x_clip.modeling_x_clip import XCLIPModel

        wishes.refuse_all(folder)
        released = hub.load_strictly(XCLIPModel, folder, attention)
        picture = Picture(released.config.vision_config.image_size, _IMAGENET_MEAN, _IMAGENET_STD)
        return MicrosoftXClip(released, hub.read_picture(folder, picture))
    kinds = f"found model_type {config.get('model_type')!r} in config.json, expected clip or xclip"
    raise WeightsError("no model of a known kind", folder, kinds, f"--model.weights={hub.EXAMPLE}")


def _from_official(
    state: Mapping[str, Tensor], spec: TwoTowerSpec, path: object, attention: str, *, is_plain: bool = False
) -> TwoTower:
    model = TwoTower(spec, attention)
    expected = {name: list(tensor.shape) for name, tensor in official.to_official(model.state_dict()).items()}
    unused = official.unused_names(state, spec)
    if unused:
        log.info("%s: not read, as in the released code: {%s}", path, ", ".join(sorted(unused)))
    # Plain CLIP has no header and no head: what it leaves open is initialised, everything else must be there.
    open_names = {name for name in expected if is_plain and not name.startswith("clip.")}
    shapes = {name: list(tensor.shape) for name, tensor in state.items() if name in expected}
    sizes = {name: f"found {s}, expected {expected[name]}" for name, s in shapes.items() if s != expected[name]}
    missing = set(expected) - set(state) - open_names
    hub.refuse(path, missing=missing, unexpected=set(state) - set(expected) - unused, sizes=sizes)
    _load_open(model, official.from_official({name: state[name] for name in expected if name in state}))
    return model


def _load_open(model: TwoTower, state: Mapping[str, Tensor]) -> None:
    """Loads `state` and initialises what it leaves open as the released code does, named in the log."""
    new = set(model.load_state_dict(state, strict=False).missing_keys)
    if not new:
        return
    for part in (model.temporal, model.head):
        if isinstance(part, TemporalTransformer | CrossEncoder):
            _start_from_text(model, part.encoder.blocks.layers, part.positions)
    identity = [name for name in official.GRAINED if f"head.{name}" in new]
    copied = sorted({name.split(".")[1] for name in new if not name.startswith("head.") or name[5:] not in identity})
    log.info("new beside plain CLIP: identity {%s}, started as released {%s}", ", ".join(identity), ", ".join(copied))


@torch.no_grad()
def _start_from_text(model: TwoTower, blocks: nn.ModuleList, positions: nn.Embedding) -> None:
    """CLIP's text positions and lowest text blocks; blocks beyond them N(0, 0.02), zero bias, xavier in-projection.

    Source: CLIP4Clip modules/modeling.py. Its paper says image encoder; its author confirmed the text encoder (#60).
    """
    text = model.text_encoder.tower.text_model
    if model.spec.embed != model.spec.text.width:
        need = f"a {model.spec.header} header needs embedding width = text width"
        widths = f"found {model.spec.embed} and {model.spec.text.width}"
        raise WeightsError(need, why=widths, attempt="--model.header=mean")
    positions.weight.copy_(text.embeddings.position_embedding.weight)
    for number, block in enumerate(blocks):
        if number < len(text.encoder.layers):
            block.load_state_dict(text.encoder.layers[number].state_dict())
            continue
        for name, layer in block.named_modules():
            if isinstance(layer, nn.Linear):
                nn.init.zeros_(layer.bias)
                nn.init.normal_(layer.weight, std=0.02)
                if name[-6:] in ("q_proj", "k_proj", "v_proj"):
                    # torch draws the joint [3w, w] in-projection, whose xavier bound is narrower than one part's.
                    bound = (6 / (4 * layer.in_features)) ** 0.5
                    nn.init.uniform_(layer.weight, -bound, bound)


def _spec_from_json(values: dict[str, Any], path: object) -> TwoTowerSpec:
    try:
        towers = {side: Tower(**values[side]) for side in ("vision", "text")}
        colours = {name: tuple(values[name]) for name in ("mean", "std")}
        spec = TwoTowerSpec(**{**values, **towers, **colours})
        if not 3 <= spec.words <= spec.context:
            raise ValueError(f"words {spec.words}, expected 3 to context = {spec.context}")
        if spec.pooling not in (CLIP4CLIP, MMACTION2):
            raise ValueError(f"pooling {spec.pooling}, expected {CLIP4CLIP} or {MMACTION2}")
        return spec
    except (KeyError, TypeError, ValueError) as error:
        reason = f"its spec does not fit: {error}"
        raise WeightsError("unreadable config.json", path, reason, "copy the folder again") from error
