"""The objective that tunes the video model on stories: what later captions leave out is read from earlier frames."""

from __future__ import annotations

from torch import nn

from vidgen_core.models.backbone import Backbone
from vidgen_moving_shapes.training.frame_heads import FrameHeads, IdentityHeads
from vidgen_moving_shapes.training.video import TextToVideo


class Stories(TextToVideo):
    """Denoising of stories by the U-Net; the text encoder is frozen, as TALC's published tuning has it.

    Args:
        path_weight: Of the path heads' error; 0 leaves them out.
        identity_weight: Of the identity heads' error; 0 leaves them out.
        caption_dropout: Share of stories without captions.
    """

    def __init__(self, path_weight: float = 1.0, identity_weight: float = 1.0, caption_dropout: float = 0.1) -> None:
        super().__init__(None, path_weight, caption_dropout)
        self.identity_weight = identity_weight

    def parts(self, backbone: Backbone) -> dict[str, nn.Module]:
        """The U-Net alone."""
        return {"denoiser": backbone.denoiser}

    def new_heads(self, backbone: Backbone) -> dict[str, FrameHeads]:
        """The path heads, and heads that ask what every frame shows."""
        identity = {"identity_heads": IdentityHeads(backbone.denoiser)} if self.identity_weight else {}
        return super().new_heads(backbone) | identity

    def weight(self, heads: FrameHeads) -> float:
        return self.identity_weight if isinstance(heads, IdentityHeads) else self.path_weight
