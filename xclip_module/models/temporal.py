"""Temporal headers over frame features, and the block stack that they share with the cross encoder.

B clips, T frames, D width.
"""

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPEncoder

# The released code writes its LayerNorm in TF style, with this epsilon instead of CLIP's 1e-5.
HEADER_EPSILON = 1e-12
_HIDDEN_KEY = -1e6


class MaskedBlocks(nn.Module):
    """CLIP's residual attention blocks over sequences with empty slots as keys left out.

    Source: CLIP4Clip (Luo et al. 2022) modules/module_cross.py; no final norm, heads of 64 channels, no dropout.
    """

    def __init__(self, width: int, layers: int):
        """Random weights; `width` a multiple of 64 (a narrower one makes a single head)."""
        super().__init__()
        config = CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=max(1, width // 64),
            hidden_act="quick_gelu",
            layer_norm_eps=HEADER_EPSILON,
        )
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
