"""The sizes and choices that describe a two-tower model completely."""

from typing import Any, NamedTuple

from xclip_module.interface import Picture

# Of RGB in 0..1, from OpenAI's preprocessing.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP4CLIP = "clip4clip"
MMACTION2 = "mmaction2"
# The fields of a Tower in the words of transformers' configurations.
TOWER_NAMES = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden": "intermediate_size",
    "activation": "hidden_act",
    "epsilon": "layer_norm_eps",
}


class Tower(NamedTuple):
    """One transformer: width, depth, heads, hidden width of the MLP, its activation and LayerNorm epsilon."""

    width: int
    layers: int
    heads: int
    hidden: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5

    @property
    def settings(self) -> dict[str, Any]:
        """The same in the words of transformers' configurations."""
        return {TOWER_NAMES[name]: value for name, value in self._asdict().items()}


class TwoTowerSpec(NamedTuple):
    """A two-tower model in numbers.

    family: "xclip" (Ma et al. 2022) or "clip4clip" (Luo et al. 2022).
    header: "mean", "transformer", "lstm" or "tight" (CLIP4Clip's cross encoder).
    patch_frames: 1, or 3 where the patch embedding spans three frames (linear_patch=3d).
    words, frames: slots W and F that the learned matrices of `xclip` are made for.
    masked: False lets empty word and frame slots take part in the similarity, as released.
    pooling: of the family "clip4clip": CLIP4CLIP pools normalised frames, MMACTION2 raw ones, and makes "transformer"
        MMAction2's adapter of `frames` positions. The other family pools as CLIP4CLIP.
    header_heads: of MMAction2's adapter, which its tensors do not tell; 0 = width / 64, as all other headers.
    """

    vision: Tower
    text: Tower
    embed: int
    image: int
    patch: int
    context: int
    vocabulary: int
    family: str = "xclip"
    header: str = "mean"
    header_layers: int = 0
    patch_frames: int = 1
    words: int = 32
    frames: int = 12
    masked: bool = False
    pooling: str = CLIP4CLIP
    header_heads: int = 0
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    @property
    def picture(self) -> Picture:
        """What the vision tower wants to see."""
        return Picture(self.image, self.mean, self.std)

    @property
    def has_adapter(self) -> bool:
        """True where the temporal header is MMAction2's TransformerAdapter."""
        return self.pooling == MMACTION2 and self.header == "transformer"

    @property
    def clip_frames(self) -> int:
        """Frames of one clip that the weights are made for; 0 = any number."""
        return self.frames if self.family == "xclip" or self.has_adapter else 0
