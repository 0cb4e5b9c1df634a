"""A text-to-video network that begins as an image model: its layers, and new ones over time that do nothing yet."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vidgen_core.errors import BadRequest
from vidgen_core.models import loading, unet3d
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.tuned import is_over_time
from vidgen_core.noise import seed_of


def load(
    path: str,
    *,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    trained_frames: int = 0,
    seed: int = 0,
) -> Backbone:
    """The backbone of an image model's folder or hub id, with a ``UNet3DConditionModel`` in the place of its U-Net.

    Args:
        variant: Which weight files to prefer, such as ``fp16``.
        trained_frames: Frames that are said to be known.
        seed: Of the layers over time.

    Raises:
        BadRequest: the folder is no image model, or one that the stock video network has no place for.
    """
    from diffusers import UNet2DConditionModel

    folder = loading.resolve(path)
    images = loading.load_component(UNet2DConditionModel, folder, "unet", dtype, variant)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights", "video"))
        unet = nn.Module.to(over_frames(images, path), dtype).eval()
    return unet3d.load(path, dtype=dtype, variant=variant, trained_frames=trained_frames, denoiser=unet)


def over_frames(images: Any, source: str) -> Any:
    """The video network that makes of every frame what an image network does.

    Its layers over time are drawn from torch's generator, and their last ones are zero.

    Raises BadRequest, which names the source, for an image network that is built otherwise.
    """
    from diffusers import UNet3DConditionModel

    config = images.config
    heads = config.attention_head_dim  # heads of each level, by the library's own misnomer
    counts = heads if isinstance(heads, list | tuple) else [heads] * len(config.block_out_channels)
    crossing = [
        (count, width)
        for count, width, kind in zip(counts, config.block_out_channels, config.down_block_types, strict=True)
        if "CrossAttn" in kind
    ]
    widths = {width / count for count, width in crossing}
    if len(widths) != 1 or not config.use_linear_projection:
        raise BadRequest(
            f"'{source}' cannot become a video network of the stock kind: its heads must be equally wide on every "
            "level and its projections linear, as those of Stable Diffusion 2 are."
        )
    unet = UNet3DConditionModel(
        sample_size=config.sample_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        down_block_types=tuple(kind.replace("2D", "3D") for kind in config.down_block_types),
        up_block_types=tuple(kind.replace("2D", "3D") for kind in config.up_block_types),
        block_out_channels=tuple(config.block_out_channels),
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
        cross_attention_dim=config.cross_attention_dim,
        attention_head_dim=int(widths.pop()),  # here the width of a head
    )
    missing, unexpected = unet.load_state_dict(images.state_dict(), strict=False)
    spatial = [name for name in missing if not is_over_time(name)]
    if unexpected or spatial:
        raise BadRequest(
            f"'{source}' cannot become a video network of the stock kind: of its tensors, {len(unexpected)} have no "
            f"place and {len(spatial)} are missing, first '{[*unexpected, *spatial][0]}'."
        )
    for name, weight in unet.named_parameters():
        if is_over_time(name) and "proj_out" in name:
            nn.init.zeros_(weight)
    return unet
