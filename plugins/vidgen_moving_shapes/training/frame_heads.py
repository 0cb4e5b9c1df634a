"""Training-only tasks: what the features of every frame must tell, so that words and frames are read together.

The velocity error alone combines two factors very late when each is of no use without the other: a motion word and the
position of a frame in the clip; a colour that an earlier scene names and the frames of a later one. Small linear heads,
thrown away after training, ask for the product at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from diffusers import UNet3DConditionModel
from torch import Tensor, nn


class FrameHeads(nn.Module, ABC):
    """One linear reading per frame of the features after the last down, the middle and the first up block.

    Args:
        unet: Its features are kept at every forward pass.
        targets: Numbers to read of every frame.
    """

    def __init__(self, unet: UNet3DConditionModel, targets: int) -> None:
        super().__init__()
        width = unet.config.block_out_channels[-1]
        self._features: dict[str, Tensor] = {}
        blocks = {"down": unet.down_blocks[-1], "middle": unet.mid_block, "up": unet.up_blocks[0]}
        self.heads = nn.ModuleDict()
        for name, block in blocks.items():
            head = nn.Linear(width, targets)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            self.heads[name] = nn.Sequential(nn.LayerNorm(width, elementwise_affine=False), head)
            block.register_forward_hook(self._keeper(name))

    reads = ""
    """The extra tensor of a sample that holds the truth."""

    @abstractmethod
    def losses(self, truth: Tensor, captioned: Tensor) -> dict[str, Tensor]:
        """Named mean squared errors, scalars, for the features of the last forward pass.

        Args:
            truth: (B, F, n), see ``clips.CaptionedClip``.
            captioned: (B,) 1 where the network saw a caption, 0 where there is nothing to read.
        """

    def _misses(self, targets: Tensor, captioned: Tensor) -> Tensor:
        """(targets,) squared errors, the mean over blocks, clips and frames."""
        seen = captioned[:, None, None]
        misses = [seen * (reading - targets).square() for reading in self.readings(len(targets))]
        return torch.stack(misses).mean(dim=(0, 1, 2))

    def _keeper(self, name: str) -> Callable[..., None]:
        def keep(module: nn.Module, arguments: tuple[object, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            self._features[name] = output[0] if isinstance(output, tuple) else output

        return keep

    def readings(self, clips: int) -> Iterator[Tensor]:
        """(B, F, targets) of each block at the last forward pass: the mean of what every place says."""
        for name, head in self.heads.items():
            features = self._features[name].float().movedim(1, -1)
            yield head(features).mean(dim=(1, 2)).unflatten(0, (clips, -1))


class PathHeads(FrameHeads):
    """Where on its path the object is, known at pure noise only from the motion words and the place of the frame."""

    def __init__(self, unet: UNet3DConditionModel) -> None:
        super().__init__(unet, 1 + 3 + 3 + 3)  # place in the scene; change of the path; the path, in scene and clip

    reads = "path"

    def losses(self, truth: Tensor, captioned: Tensor) -> dict[str, Tensor]:
        """``position``, ``change`` and ``path``."""
        errors = self._misses(truth, captioned)
        return {"position": errors[0], "change": errors[1:4].mean(), "path": errors[4:].mean()}


class IdentityHeads(FrameHeads):
    """What a frame shows and on what ground: in later scenes of a story known only from captions of earlier ones."""

    def __init__(self, unet: UNet3DConditionModel) -> None:
        super().__init__(unet, 3 + 4 + 3)  # colour of the object, its shape (one of four), colour of the ground

    reads = "identity"

    def losses(self, truth: Tensor, captioned: Tensor) -> dict[str, Tensor]:
        """``identity``."""
        return {"identity": self._misses(truth, captioned).mean()}


class PlaceHeads(FrameHeads):
    """Where the object is and how large, on the canvas: in a chunk that goes on, known only from the frames before."""

    def __init__(self, unet: UNet3DConditionModel) -> None:
        super().__init__(unet, 3)

    reads = "place"

    def losses(self, truth: Tensor, captioned: Tensor) -> dict[str, Tensor]:
        """``place``."""
        return {"place": self._misses(truth, captioned).mean()}
