"""Spatial conditions (depth, sketches, motion, ...) as channels beside the latents: an encoder for each of them.

VideoComposer's spatio-temporal condition encoder (arXiv 2306.02018, section 3.2), as the released TF-T2V has it: every
frame by itself down to the latents' size, then attention over time in every cell.

N videos, F frames, c channels of a map, H W its size in pixels, C channels of the condition, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidgen_core.attention import Attend, split_heads
from vidgen_core.data import image_maps

CHANNELS = dict(image_maps.CHANNELS)
"""The spatial conditions that are known, and c of each."""

HEADS, LAYERS = 2, 1
"""As published. Every head is as wide as the condition has channels."""


AT_ONCE = 2
"""Frames that are brought down to the latents' size together: at 1080p each takes 0.27 GB for every activation."""


class OverTime(nn.Module):
    """Attention over the frames, then two linear layers without a norm before them; there are no positions."""

    def __init__(self, channels: int, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * heads * channels, bias=False)
        self.to_out = nn.Linear(heads * channels, channels)
        self.linear_in = nn.Linear(channels, 4 * channels)
        self.linear_out = nn.Linear(4 * channels, channels)
        self.dropout = nn.Dropout(0.05)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """(N * h * w, F, C) from tokens of that shape."""
        q, k, v = (split_heads(part, self.heads) for part in self.to_qkv(self.norm(x)).chunk(3, dim=-1))
        x = x + self.dropout(self.to_out(attend(q, k, v).transpose(1, 2).flatten(2)))
        out: Tensor = x + self.linear_out(self.dropout(F.gelu(self.linear_in(x))))
        return out


class MapEncoder(nn.Module):
    """Maps of one condition as its share of the condition's channels.

    Args:
        map_channels: c.
        channels: C.
        layers, heads: Of the attention over time.
    """

    def __init__(self, map_channels: int, channels: int, layers: int = LAYERS, heads: int = HEADS) -> None:
        super().__init__()
        hidden = 4 * channels
        self.conv_in = nn.Conv2d(map_channels, hidden, 3, padding=1)
        self.conv_mid = nn.Conv2d(hidden, hidden, 3, stride=2, padding=1)
        self.conv_out = nn.Conv2d(hidden, channels, 3, stride=2, padding=1)
        self.over_time = nn.ModuleList(OverTime(channels, heads) for _ in range(layers))

    def forward(self, maps: Tensor, size: tuple[int, int], attend: Attend, over_time: bool = True) -> Tensor:
        """(N, C, F, h, w) from maps (N, c, F, H, W) of any size.

        Args:
            size: h and w; the maps are pooled to what two halvings bring there.
            over_time: False leaves out the layers over time: images must not teach them.
        """
        videos = len(maps)
        frames = maps.transpose(1, 2).flatten(0, 1)
        x = torch.cat([self._reduced(some, size) for some in frames.split(AT_ONCE)])
        cells = x.unflatten(0, (videos, -1)).permute(0, 3, 4, 1, 2).flatten(0, 2)  # (N h w) F C
        for layer in self.over_time if over_time else ():
            cells = layer(cells, attend)
        return cells.unflatten(0, (videos, *size)).permute(0, 4, 3, 1, 2)

    def _reduced(self, frames: Tensor, size: tuple[int, int]) -> Tensor:
        """(frames, C, h, w) from maps (frames, c, H, W)."""
        x = F.silu(self.conv_in(frames))
        x = F.adaptive_avg_pool2d(x, (4 * size[0], 4 * size[1]))
        out: Tensor = self.conv_out(F.silu(self.conv_mid(x)))
        return out


def encoded(
    encoders: nn.ModuleDict,
    maps: Mapping[str, Tensor],
    size: tuple[int, int],
    attend: Attend,
    kept: Mapping[str, Tensor] | None = None,
    over_time: bool = True,
) -> Tensor:
    """The sum (N, C, F, h, w) of what the encoders make of their conditions' maps (N, c, F, H, W), at least one.

    Args:
        kept: Condition -> (N,) which videos keep it, where a training drops some; None: all keep all.
        over_time: See ``MapEncoder.forward``.
    """
    parts = []
    for condition, given in maps.items():
        part = encoders[condition](given, size, attend, over_time)
        parts.append(part if kept is None else part * kept[condition].to(part)[:, None, None, None, None])
    total: Tensor = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
