"""Temporal headers over frame features, and the block stack that they share with the cross encoder.

B clips, T frames, D width.
"""

import torch
from torch import Tensor, nn

from xclip_module.models.spec import Tower

# The released code writes its LayerNorm in TF style, with this epsilon instead of CLIP's 1e-5.
HEADER_EPSILON = 1e-12
_CLIP_EPSILON = 1e-5
# What the released code adds to the scores of empty slots.
_HIDDEN_KEY = -1e6


class MaskedBlocks(nn.Module):
    """CLIP's residual attention blocks over sequences with empty slots as keys left out.

    Source: CLIP4Clip (Luo et al. 2022) modules/module_cross.py; no final norm, heads of 64 channels, no dropout.
    """

    def __init__(self, width: int, layers: int, *, heads: int = 0, epsilon: float = HEADER_EPSILON):
        """Random weights; heads = 0 makes them 64 channels wide (`width` a multiple of 64, or a single head)."""
        from transformers.models.clip.configuration_clip import CLIPTextConfig
        from transformers.models.clip.modeling_clip import CLIPEncoder

        super().__init__()
        tower = Tower(width, layers, heads=heads or max(1, width // 64), hidden=4 * width, epsilon=epsilon)
        config = CLIPTextConfig(**tower.settings)
        # flash_attention_2, which the towers may have, takes no mask that is added to scores.
        config._attn_implementation = "sdpa"
        self.blocks = CLIPEncoder(config)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """[B, T, D] and mask [B, T] -> [B, T, D]; padded queries are computed, padded keys are not seen."""
        hidden = torch.where(mask, 0.0, _HIDDEN_KEY)[:, None, None, :]  # [B, 1, 1, T]
        hidden = hidden.expand(-1, 1, states.shape[1], -1).to(states.dtype)
        return self.blocks(inputs_embeds=states, attention_mask=hidden).last_hidden_state


class TemporalTransformer(nn.Module):
    """Position embedding, masked blocks, residual with the un-positioned input ("seqTransf").

    Source: X-CLIP (Ma et al. 2022) modules/modeling_xclip.py. The paper writes no residual and 3 layers; the code has
    the residual and 4.
    """

    def __init__(self, width: int, *, layers: int, context: int):
        """Random weights; `context` = the largest number of frames."""
        super().__init__()
        self.positions = nn.Embedding(context, width)
        self.encoder = MaskedBlocks(width, layers)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """[B, T, D] frame features and mask [B, T] -> [B, T, D]."""
        if frames.shape[1] > self.positions.num_embeddings:
            raise ValueError(f"a clip of {frames.shape[1]} frames; positions for {self.positions.num_embeddings}")
        return self.encoder(frames + self.positions.weight[: frames.shape[1]], mask) + frames


class TransformerAdapter(nn.Module):
    """One learned position per frame of the clip, CLIP's blocks, residual with the un-positioned input.

    Source: MMAction2 1.2.0 mmaction/models/similarity/adapters.py, `TransformerAdapter`; no released configuration uses
    it. Against `TemporalTransformer`: CLIP's LayerNorm epsilon, any number of heads, a start of its own. Differs: empty
    slots are hidden from the attention; the released code has none, since it samples short videos repeatedly.
    """

    def __init__(self, width: int, *, layers: int, frames: int, heads: int):
        """Weights as the released code draws them, standard deviations from width and depth; heads = 0: width / 64."""
        super().__init__()
        self.positional_embedding = nn.Parameter(0.01 * torch.randn(frames, width))
        self.transformer = MaskedBlocks(width, layers, heads=heads, epsilon=_CLIP_EPSILON)
        # As CLIP starts its towers (openai/CLIP model.py, `initialize_parameters`): what adds to the residual stream
        # starts smaller the more blocks add to it.
        inner, outer = width**-0.5, (2 * layers * width) ** -0.5
        for block in self.transformer.blocks.layers:
            attention = block.self_attn
            for part in (attention.q_proj, attention.k_proj, attention.v_proj):
                nn.init.normal_(part.weight, std=inner)
                nn.init.zeros_(part.bias)
            nn.init.normal_(attention.out_proj.weight, std=outer)
            nn.init.zeros_(attention.out_proj.bias)
            nn.init.normal_(block.mlp.fc1.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.fc2.weight, std=outer)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """[B, T, D] frame features and mask [B, T] -> [B, T, D]; raises ValueError for another T than the positions."""
        if frames.shape[1] != len(self.positional_embedding):
            slots, expected = frames.shape[1], len(self.positional_embedding)
            raise ValueError(f"clips of {slots} frame slots, this adapter is for {expected}: sample {expected} frames")
        return self.transformer(frames + self.positional_embedding, mask) + frames


class TemporalLSTM(nn.Module):
    """One unidirectional LSTM layer over the real frames, residual ("seqLSTM").

    Source: CLIP4Clip (Luo et al. 2022) modules/modeling.py. Differs in empty slots only, which no pooling reads.
    """

    def __init__(self, width: int):
        """Random weights as torch draws them, as released."""
        super().__init__()
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """[B, T, D] frame features and mask [B, T] (real frames first) -> [B, T, D]."""
        packed = nn.utils.rnn.pack_padded_sequence(frames, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        states, _ = self.lstm(packed)
        states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=frames.shape[1])
        return states + frames
