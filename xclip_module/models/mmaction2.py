"""What a checkpoint of MMAction2's CLIP4Clip (`CLIPSimilarity`) means beyond its tensors."""

import re

from xclip_module.errors import WeightsError
from xclip_module.models.spec import MMACTION2, TwoTowerSpec

# CLIP's colours in units of 0..255, rounded as its data preprocessor has them.
_MEAN = (122.771 / 255, 116.746 / 255, 104.093 / 255)
_STD = (68.500 / 255, 66.632 / 255, 70.323 / 255)


def mmaction2_spec(spec: TwoTowerSpec) -> TwoTowerSpec:
    """The spec of a "clip4clip" model pooled as MMAction2 does: its colours, and as many words as the text tower takes.

    Source: MMAction2 1.2.0 configs/retrieval/clip4clip and mmaction/models/similarity.
    """
    return spec._replace(pooling=MMACTION2, words=spec.context, mean=_MEAN, std=_STD)


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
