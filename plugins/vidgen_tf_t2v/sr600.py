"""SR600, VGen's network that refines finished videos: ModelScope's layout with three differences inside.

Names and shapes are those of ModelScope, so nothing but a file's name may tell that it is not: it must be said
(``refine=``). What differs is how rows are padded and cut, for heights such as 90 cells that do not halve evenly, and
what the decoder makes of its first two skips (FreeU, arXiv 2309.11497). N videos, F frames, C channels, h w latent
cells.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidgen_core.errors import BadRequest
from vidgen_core.models import loading, unet3d
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.tuned import read_tensors
from vidgen_tf_t2v.ddim import DIFFUSIONS
from vidgen_tf_t2v.published import read_unet, reads_conditions

MODELSCOPE = "text2video_pytorch_model.pth"
"""The name under which ModelScope published the model that SR600 has the layout of."""

FREE_U = ((1.1, 0.6), (1.2, 0.4))
"""Of the decoder's first two skips: factors of the first half of what comes from below, and of the skip's low waves."""


def load(
    path: str,
    parts: str,
    *,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
) -> Backbone:
    """The backbone of SR600's checkpoint, ``sr_step_110000_ema.pth``.

    Args:
        parts: A diffusers folder or hub id whose VAE, text encoder and tokenizer are taken.
        variant: Which files of those to prefer.

    Raises:
        BadRequest: there is no checkpoint, or it is of another layout.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise BadRequest(
            f"tf_t2v.refine={path}: there is no such file. Give SR600's checkpoint, sr_step_110000_ema.pth."
        )
    if file.name == MODELSCOPE:
        raise BadRequest(
            f"tf_t2v.refine={path} is by its name ModelScope's model, which makes videos and refines none. Give "
            "SR600's checkpoint, sr_step_110000_ema.pth."
        )
    tensors, _ = read_tensors(file)
    if reads_conditions(tensors):
        raise BadRequest(
            f"tf_t2v.refine={path} reads spatial conditions, which SR600 does not: it is a model of TF-T2V."
        )
    unet = as_sr600(read_unet(tensors, str(file), dtype))
    backbone = unet3d.load(parts, dtype=dtype, variant=variant, denoiser=unet)
    backbone.scheduler_config = dict(DIFFUSIONS["cosine_v"])
    others = {name: digest for name, digest in backbone.weights.items() if not name.startswith("unet/")}
    backbone.weights = {f"unet/{file.name}": loading.file_hash(file), **others}
    return backbone


def fits(height: int, width: int, levels: int, cell: int = 8) -> bool:
    """Whether rows come back as many as they went down through so many levels of the network, as they must."""
    h, w = height // cell, width // cell
    for _ in range(levels - 1):
        if h % 2 or w % 2:
            return False
        h, w = rows_below(h), w // 2
    return height % cell == 0 and width % cell == 0


def rows_below(h: int) -> int:
    """Rows one level down: two are padded at each end, so that the outermost is all padding."""
    return (h + 4 - 3) // 2 + 1


def as_sr600(unet: Any) -> Any:
    """A ``UNet3DConditionModel`` of ModelScope's kind, changed in place to compute what SR600 does; returns it."""
    for module in unet.modules():
        for down in getattr(module, "downsamplers", None) or ():
            down.conv.padding = (2, 1)
        for up in getattr(module, "upsamplers", None) or ():
            up.forward = _between_rows(up.conv)
    first = unet.up_blocks[0]
    if len(first.resnets) < len(FREE_U):
        raise BadRequest(f"SR600's decoder has {len(FREE_U)} skips or more on its lowest level, and this has fewer.")
    for resnet, (kept, low) in zip(first.resnets[: len(FREE_U)], FREE_U, strict=True):
        resnet.register_forward_pre_hook(_free_u(kept, low))
    return unet


def _between_rows(conv: nn.Module) -> Callable[..., Tensor]:
    def forward(hidden_states: Tensor, output_size: Any = None, *args: Any, **named: Any) -> Tensor:
        """(N F, C, 2 h - 2, 2 w): doubled, and without the first row and the last."""
        doubled = nn.functional.interpolate(hidden_states, scale_factor=2.0, mode="nearest")
        out: Tensor = conv(doubled[..., 1:-1, :])
        return out

    return forward


def _free_u(kept: float, low: float) -> Callable[..., Any]:
    from diffusers.utils.torch_utils import fourier_filter

    def adjust(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        below, skip = inputs[0].chunk(2, dim=1)  # on the lowest level both have as many channels
        half = below.shape[1] // 2
        below = torch.cat([below[:, :half] * kept, below[:, half:]], dim=1)
        skip = fourier_filter(skip, threshold=1, scale=low)
        return (torch.cat([below, skip], dim=1), *inputs[1:])

    return adjust
