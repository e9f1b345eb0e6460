"""The released checkpoints' names and ours, both ways, and the sizes that their tensors imply.

Official names: X-CLIP (Ma et al. 2022) and CLIP4Clip (Luo et al. 2022) state dicts; OpenAI CLIP is the same without
the `clip.` prefix, MMAction2's CLIP4Clip has `adapter.` for its header. Ours are those of transformers' towers inside
`TwoTower`.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from xclip_module.errors import WeightsError
from xclip_module.models.spec import CLIP4CLIP, MMACTION2, Tower, TwoTowerSpec

GRAINED = (
    "global_mat_weight",
    "local_mat_weight",
    "word_logit_weight",
    "frame_logit_weight",
    "word_mat_weight",
    "word_mat_weight2",
    "frame_mat_weight",
    "frame_mat_weight2",
)

_ADAPTER_POSITIONS = "adapter.positional_embedding"
_VISION = "frame_encoder.tower.vision_model."
_TEXT = "text_encoder.tower.text_model."
# Stacks of numbered blocks, whose leaves all have the names of `_LEAVES`.
_STACKS = {
    "clip.visual.transformer.resblocks.": f"{_VISION}encoder.layers.",
    "clip.transformer.resblocks.": f"{_TEXT}encoder.layers.",
    "transformerClip.resblocks.": "temporal.encoder.blocks.layers.",
    "cross.transformer.resblocks.": "head.encoder.blocks.layers.",
    "adapter.transformer.resblocks.": "temporal.transformer.blocks.layers.",
}
_LEAVES = {
    "attn.out_proj.": "self_attn.out_proj.",
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
_PLAIN = {
    "clip.logit_scale": "logit_scale",
    "clip.visual.class_embedding": f"{_VISION}embeddings.class_embedding",
    "clip.visual.positional_embedding": f"{_VISION}embeddings.position_embedding.weight",
    # transformers spells it so.
    "clip.visual.ln_pre.weight": f"{_VISION}pre_layrnorm.weight",
    "clip.visual.ln_pre.bias": f"{_VISION}pre_layrnorm.bias",
    "clip.visual.ln_post.weight": f"{_VISION}post_layernorm.weight",
    "clip.visual.ln_post.bias": f"{_VISION}post_layernorm.bias",
    "clip.visual.conv1.weight": f"{_VISION}embeddings.patch_embedding.weight",
    "clip.token_embedding.weight": f"{_TEXT}embeddings.token_embedding.weight",
    "clip.positional_embedding": f"{_TEXT}embeddings.position_embedding.weight",
    "clip.ln_final.weight": f"{_TEXT}final_layer_norm.weight",
    "clip.ln_final.bias": f"{_TEXT}final_layer_norm.bias",
    "frame_position_embeddings.weight": "temporal.positions.weight",
    _ADAPTER_POSITIONS: "temporal.positional_embedding",
    "cross.embeddings.position_embeddings.weight": "head.positions.weight",
    "cross.pooler.ln_pool.weight": "head.norm.weight",
    "cross.pooler.ln_pool.bias": "head.norm.bias",
    "cross.pooler.dense.weight": "head.dense.weight",
    "cross.pooler.dense.bias": "head.dense.bias",
    "similarity_dense.weight": "head.score.weight",
    "similarity_dense.bias": "head.score.bias",
    **{f"lstm_visual.{k}_{g}_l0": f"temporal.lstm.{k}_{g}_l0" for k in ("weight", "bias") for g in ("ih", "hh")},
    **{name: f"head.{name}" for name in GRAINED},
}
# Stored as [in, out] by CLIP, as [out, in] by torch's Linear.
_TRANSPOSED = {
    "clip.visual.proj": "frame_encoder.tower.visual_projection.weight",
    "clip.text_projection": "text_encoder.tower.text_projection.weight",
}
# The patch embedding of linear_patch=3d; conv1 stays in such checkpoints and is not read.
_CONV3D = "clip.visual.conv2.weight"
# CLIP's colours in units of 0..255, rounded as MMAction2's data preprocessor has them.
_MMACTION2_MEAN = (122.771 / 255, 116.746 / 255, 104.093 / 255)
_MMACTION2_STD = (68.500 / 255, 66.632 / 255, 70.323 / 255)


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the released names and layouts.

    The patch embedding over three frames becomes `visual.conv2` [width, 3, 3, p, p] (channels before time).
    """
    plain = {ours: official for official, ours in _PLAIN.items()}
    transposed = {ours: official for official, ours in _TRANSPOSED.items()}
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in transposed:
            result[transposed[name]] = tensor.T
        elif name in plain:
            conv3d = name.endswith("patch_embedding.weight") and tensor.shape[1] == 9
            result[_CONV3D if conv3d else plain[name]] = (
                tensor.unflatten(1, (3, 3)).transpose(1, 2) if conv3d else tensor
            )
        else:
            # torch's attention keeps q, k and v as one in-projection [3w, w], transformers as three; met three times,
            # the joint tensor is the same each time.
            official, part = _block_to_official(name)
            if part is None:
                result[official] = tensor
            else:
                result[official] = torch.cat([state[part.format(kind)] for kind in "qkv"])
    return result


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_official`."""
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in _PLAIN:
            result[_PLAIN[name]] = tensor
        elif name in _TRANSPOSED:
            result[_TRANSPOSED[name]] = tensor.T
        elif name == _CONV3D:
            # [width, 3 colours, 3 times, p, p] to a Conv2d over neighbours [width, 9, p, p], time before colour.
            result[_PLAIN["clip.visual.conv1.weight"]] = tensor.transpose(1, 2).flatten(1, 2)
        else:
            result.update(_block_from_official(name, tensor))
    return result


def infer_spec(state: Mapping[str, Tensor], path: object) -> TwoTowerSpec:
    """Family, header and sizes from an official state dict; heads = width / 64 as in CLIP.

    Two things no tensor tells: the pooling of a mean header, for which CLIP4Clip's stands here, and the heads of
    MMAction2's adapter; see `mmaction2_spec` and `adapter_heads`.
    Raises WeightsError naming the tensors without which nothing can be inferred.
    """
    patches = _CONV3D if _CONV3D in state else "clip.visual.conv1.weight"
    needed = {patches, *_TRANSPOSED, "clip.visual.positional_embedding", "clip.positional_embedding"}
    needed |= {"clip.token_embedding.weight", "clip.ln_final.weight"}
    if missing := sorted(needed - set(state)):
        names = f"missing {{{', '.join(missing)}}}, found {len(state)} tensors such as {sorted(state)[:3]}"
        raise WeightsError("not an X-CLIP, CLIP4Clip or CLIP ViT checkpoint", path, names)
    width, patch = len(state[patches]), state[patches].shape[-1]
    text_width = len(state["clip.ln_final.weight"])
    # One position for the class token, the others on a square grid of patches.
    grid = round((len(state["clip.visual.positional_embedding"]) - 1) ** 0.5)
    header = _header(state)
    has_adapter = any(name.startswith("adapter.") for name in state)
    # A cross encoder of X-CLIP's code carries the eight matrices too, and never reads them.
    grained = any(name in state for name in GRAINED) and header != "tight" and not has_adapter
    stack = {
        "transformer": "adapter.transformer.resblocks." if has_adapter else "transformerClip.resblocks.",
        "tight": "cross.transformer.resblocks.",
    }
    frame_slots = ("frame_logit_weight", "frame_mat_weight", "frame_mat_weight2", _ADAPTER_POSITIONS)
    return TwoTowerSpec(
        vision=_tower(width, _layers(state, "clip.visual.transformer.resblocks.")),
        text=_tower(text_width, _layers(state, "clip.transformer.resblocks.")),
        embed=state["clip.text_projection"].shape[1],
        image=patch * grid,
        patch=patch,
        context=len(state["clip.positional_embedding"]),
        vocabulary=len(state["clip.token_embedding.weight"]),
        family="xclip" if grained else "clip4clip",
        header=header,
        header_layers=_layers(state, stack[header]) if header in stack else 0,
        patch_frames=3 if patches == _CONV3D else 1,
        words=_side(state, ("word_logit_weight", "word_mat_weight", "word_mat_weight2"), 32),
        frames=_side(state, frame_slots, 12),
        pooling=MMACTION2 if has_adapter else CLIP4CLIP,
    )


def mmaction2_spec(spec: TwoTowerSpec) -> TwoTowerSpec:
    """The spec of a "clip4clip" model pooled as MMAction2 does: its colours, and as many words as the text tower takes.

    Source: MMAction2 1.2.0 configs/retrieval/clip4clip and mmaction/models/similarity.
    """
    return spec._replace(pooling=MMACTION2, words=spec.context, mean=_MMACTION2_MEAN, std=_MMACTION2_STD)


def adapter_heads(settings: str, path: object) -> int:
    """Heads of a TransformerAdapter from the configuration text that MMEngine stores in a checkpoint's `meta`.

    Raises WeightsError without it: any number fits the tensors, and all but one give wrong scores.

    >>> adapter_heads("adapter=dict(transformer_heads=8, type='TransformerAdapter')", "epoch_5.pth")
    8
    """
    heads = re.search(r"\btransformer_heads['\"]?\s*[=:]\s*(\d+)", settings)
    if heads is None:
        gap = "no tensor tells the heads of its adapter, and no transformer_heads stands in its meta"
        raise WeightsError("incomplete MMAction2 checkpoint", path, gap, "the file as MMAction2 wrote it")
    return int(heads[1])


def unused_names(state: Mapping[str, Tensor], spec: TwoTowerSpec) -> set[str]:
    """Tensors that the released code stores and its own forward pass never reads."""
    unused = set()
    if spec.header == "lstm":
        unused.add("frame_position_embeddings.weight")
    if spec.patch_frames == 3:
        unused.add("clip.visual.conv1.weight")
    if spec.header == "tight":
        unused |= set(GRAINED)
    return unused & set(state)


def _tower(width: int, layers: int) -> Tower:
    return Tower(width=width, layers=layers, heads=max(1, width // 64), hidden=4 * width)


def _layers(state: Mapping[str, Tensor], stack: str) -> int:
    numbers = [int(block[1]) for name in state if (block := re.match(rf"{re.escape(stack)}(\d+)\.", name))]
    return max(numbers, default=-1) + 1


def _side(state: Mapping[str, Tensor], names: tuple[str, ...], default: int) -> int:
    return next((len(state[name]) for name in names if name in state), default)


def _header(state: Mapping[str, Tensor]) -> str:
    prefixes = {"adapter.": "transformer", "transformerClip.": "transformer", "lstm_visual.": "lstm", "cross.": "tight"}
    return next((kind for prefix, kind in prefixes.items() if any(n.startswith(prefix) for n in state)), "mean")


def _block_to_official(name: str) -> tuple[str, str | None]:
    """Official name of a block's parameter, and for q, k, v the pattern of the three that make it up."""
    for official, ours in _STACKS.items():
        if name.startswith(ours):
            number, leaf = name.removeprefix(ours).split(".", 1)
            if projection := re.fullmatch(r"self_attn\.[qkv]_proj\.(weight|bias)", leaf):
                pattern = f"{ours}{number}.self_attn.{{}}_proj.{projection[1]}"
                return f"{official}{number}.attn.in_proj_{projection[1]}", pattern
            theirs = next(o + leaf.removeprefix(u) for o, u in _LEAVES.items() if leaf.startswith(u))
            return f"{official}{number}.{theirs}", None
    raise KeyError(name)


def _block_from_official(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    official, ours = next((o, u) for o, u in _STACKS.items() if name.startswith(o))
    number, leaf = name.removeprefix(official).split(".", 1)
    if leaf.startswith("attn.in_proj_"):
        for kind, part in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{ours}{number}.self_attn.{kind}_proj.{leaf.removeprefix('attn.in_proj_')}", part
    else:
        theirs = next(u + leaf.removeprefix(o) for o, u in _LEAVES.items() if leaf.startswith(o))
        yield f"{ours}{number}.{theirs}", tensor
