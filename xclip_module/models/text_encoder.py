"""CLIP's text tower: sentence and word features. B texts, W word slots, D embedding width."""

import torch
from torch import Tensor, nn

from xclip_module.interface import Embeddings
from xclip_module.models.spec import TwoTowerSpec


class TextEncoder(nn.Module):
    """Sentence feature = projected state of the end token; word features = projected states of all W slots.

    Raw (not normalised); padding slots are encoded like any other, as in the released code. The attention is causal,
    so what fills the padding never reaches the sentence feature.
    Source: CLIP (Radford et al. 2021) through transformers; X-CLIP (Ma et al. 2022) modules/modeling_xclip.py.
    """

    def __init__(self, spec: TwoTowerSpec, attention: str = "sdpa"):
        """Random weights of the spec's sizes; `attention` is transformers' name of the kernel."""
        from transformers.models.clip.configuration_clip import CLIPTextConfig
        from transformers.models.clip.modeling_clip import CLIPTextModelWithProjection

        super().__init__()
        self.context = spec.context
        config = CLIPTextConfig(
            **spec.text.settings,
            vocab_size=spec.vocabulary,
            projection_dim=spec.embed,
            max_position_embeddings=spec.context,
            # CLIP's two special tokens are its last two.
            bos_token_id=spec.vocabulary - 2,
            eos_token_id=spec.vocabulary - 1,
            pad_token_id=0,
        )
        config._attn_implementation = attention
        self.tower = CLIPTextModelWithProjection(config)

    def forward(self, input_ids: Tensor, mask: Tensor) -> Embeddings:
        """[B, W] int64 ids and mask -> pooled [B, D], tokens [B, W, D], mask [B, W].

        The end token is the largest id, its first place, as in CLIP. Raises ValueError when W exceeds the context.
        """
        if input_ids.shape[1] > self.context:
            raise ValueError(f"input_ids has {input_ids.shape[1]} slots, this text tower takes at most {self.context}")
        states = self.tower(input_ids=input_ids).last_hidden_state
        words = self.tower.text_projection(states).float()  # [B, W, D]
        end = input_ids.argmax(dim=1)
        sentence = words[torch.arange(len(words), device=words.device), end]
        return Embeddings(sentence, words, mask.bool())
