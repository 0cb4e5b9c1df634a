"""The temporal self-attention that ends every transformer block (arXiv 2212.11565, section 3.2)."""

from __future__ import annotations

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from vidgen_core.attention import Attend, SelfAttention


class TemporalAttention(nn.Module):
    """x + attention over the frames of each token, without positions; as wide as the block's own attention.

    Its output projection starts at zero, weight *and* bias, so that a fresh layer changes nothing.

    Args:
        block: The transformer block that it ends.
        backend: The kernel's name.
        attend: The kernel.
    """

    def __init__(self, block: BasicTransformerBlock, backend: str, attend: Attend) -> None:
        super().__init__()
        width, heads = block.attn1.to_q.in_features, block.attn1.heads
        self.norm_temp = nn.LayerNorm(width)
        self.attn_temp = Attention(
            width,
            heads=heads,
            dim_head=width // heads,
            upcast_attention=block.attn1.upcast_attention,
            processor=SelfAttention(backend, attend),
        )
        for parameter in self.attn_temp.to_out[0].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, frames: int, time: Tensor | None = None) -> Tensor:
        """(B*F, N, C) -> the same shape."""
        by_token = self.norm_temp(x).unflatten(0, (-1, frames)).transpose(1, 2).flatten(0, 1)  # B*N F C
        mixed = self.attn_temp(by_token)
        return x + mixed.unflatten(0, (-1, x.shape[1])).transpose(1, 2).flatten(0, 1)
