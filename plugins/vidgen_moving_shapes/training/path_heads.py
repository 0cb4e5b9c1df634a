"""A training-only task: the features of every frame must tell where on its path the object is.

From pure noise that is known only from the motion word and from the position of the frame in the clip. The velocity
error alone combines the two very late, because each is of no use without the other. So small heads, thrown away
after training, read both of them and their product from the features.
"""

from collections.abc import Callable

import torch
from diffusers import UNet3DConditionModel
from torch import Tensor, nn

TARGETS = 7
"""Position of the frame in -1..1; change of the path over the clip (x, y, size); the path itself (x, y, size)."""


class PathHeads(nn.Module):
    """One linear reading of the features after the last down, the middle and the first up block."""

    def __init__(self, unet: UNet3DConditionModel) -> None:
        super().__init__()
        width = unet.config.block_out_channels[-1]
        self._features: dict[str, Tensor] = {}
        blocks = {"down": unet.down_blocks[-1], "middle": unet.mid_block, "up": unet.up_blocks[0]}
        self.heads = nn.ModuleDict()
        for name, block in blocks.items():
            head = nn.Linear(width, TARGETS)
            nn.init.zeros_(head.weight)
            self.heads[name] = nn.Sequential(nn.LayerNorm(width, elementwise_affine=False), head)
            block.register_forward_hook(self._keeper(name))

    def _keeper(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, arguments: tuple[object, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            self._features[name] = output[0] if isinstance(output, tuple) else output

        return keep

    def loss(self, paths: Tensor, captioned: Tensor) -> Tensor:
        """Squared errors (3,) of position, change and path for the features of the last forward pass.

        Args:
            paths: (B, F, 3), see ``clips.CaptionedClip.path``.
            captioned: (B,) 1 where the network saw a caption, 0 where there is nothing to read.
        """
        position = torch.linspace(-1, 1, paths.shape[1]).to(paths)[None, :, None].expand_as(paths[..., :1])
        change = (3 * paths * position).mean(dim=1, keepdim=True).expand_as(paths)  # the slope against the position
        targets = torch.cat([position, change, paths], dim=-1)
        seen = captioned[:, None, None]
        misses = [seen * (self._read(name, len(paths)) - targets).square() for name in self.heads]
        errors = torch.stack(misses).mean(dim=(0, 1, 2))
        return torch.stack([errors[0], errors[1:4].mean(), errors[4:].mean()])

    def _read(self, name: str, clips: int) -> Tensor:
        """(B, F, TARGETS), the mean of what every place says."""
        features = self._features[name].float().movedim(1, -1)
        return self.heads[name](features).mean(dim=(1, 2)).unflatten(0, (clips, -1))
