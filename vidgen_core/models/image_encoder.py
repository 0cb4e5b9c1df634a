"""A CLIP image encoder, as methods read it: pictures in, one embedding each out. N pictures, H W pixels, D features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidgen_core.data.pixels import center_crop
from vidgen_core.errors import BadRequest, nearest
from vidgen_core.models import loading
from vidgen_core.models.open_clip import vision_tower
from vidgen_core.models.tuned import read_tensors

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that the published encoders were trained on, red, green and blue in [0, 1]."""

TEXT = ("text_model.", "text_projection.", "logit_scale")
"""Beginnings of the names of a whole CLIP model's text half."""


def blurred_bicubic(pixels: Tensor, side: int) -> Tensor:
    """(N, 3, side, side) float32 of pixels (N, 3, H, W), whatever the aspect; the resize of published pipelines.

    An axis that shrinks by a factor f is first blurred by a Gaussian of (f - 1) / 2 pixels, reflected at the border;
    then both are interpolated bicubically with the corners aligned. Values may leave the input's range.
    """
    pixels = pixels.float()
    for axis in (2, 3):
        length = pixels.shape[axis]
        if length <= side:
            continue
        sigma = max((length / side - 1) / 2, 0.001)
        reach = int(max(4 * sigma, 3)) // 2
        kernel = torch.exp(-((torch.arange(-reach, reach + 1) / sigma) ** 2) / 2)
        border = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
        padded = functional.pad(pixels, border, mode="reflect")
        pixels = torch.zeros_like(pixels)
        # Not a convolution, which some devices round to fewer bits.
        for start, weight in enumerate((kernel / kernel.sum()).tolist()):
            pixels.add_(padded.narrow(axis, start, length), alpha=weight)
    return functional.interpolate(pixels, (side, side), mode="bicubic", align_corners=True)


def antialiased_bicubic(pixels: Tensor, side: int) -> Tensor:
    """(N, 3, side, side) float32 of pixels (N, 3, H, W), whatever the aspect; the filter of Pillow and transformers."""
    return functional.interpolate(pixels.float(), (side, side), mode="bicubic", antialias=True)


def center_bilinear(pixels: Tensor, side: int) -> Tensor:
    """(N, 3, side, side) float32 of the middle square of pixels (N, 3, H, W), as Pillow makes it in three steps.

    Its box filter to a shorter side twice as long as wanted, the cut, then its bilinear filter.
    """
    pixels = pixels.float()
    scale = 2 * side / min(pixels.shape[-2:])
    for axis in (2, 3):
        pixels = _boxed(pixels, axis, max(2 * side, round(pixels.shape[axis] * scale)))
    square = center_crop(pixels, 2 * side, 2 * side)
    return functional.interpolate(square, (side, side), mode="bilinear", antialias=True)


def _boxed(pixels: Tensor, axis: int, count: int) -> Tensor:
    """The means of ``count`` boxes of whole pixels along an axis, as even as it goes; the nearest where it grows."""
    length = pixels.shape[axis]
    if count >= length:
        return pixels.index_select(axis, (2 * torch.arange(count, device=pixels.device) + 1) * length // (2 * count))
    # Rounded in whole numbers: a box must not depend on the last bit of a fraction.
    edges = (2 * torch.arange(count + 1, device=pixels.device) * length + count) // (2 * count)
    sums = functional.pad(pixels.double().cumsum(axis), (1, 0) if axis == 3 else (0, 0, 1, 0))
    shape = [-1 if dimension == axis else 1 for dimension in range(4)]
    return (sums.index_select(axis, edges).diff(dim=axis) / edges.diff().view(shape)).float()


RESIZES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "blurred_bicubic": blurred_bicubic,
    "antialiased_bicubic": antialiased_bicubic,
    "center_bilinear": center_bilinear,
}


def preprocess(
    pixels: Tensor,
    side: int = 224,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    resize: Callable[[Tensor, int], Tensor] = blurred_bicubic,
) -> Tensor:
    """What a CLIP image encoder sees of pictures: squares, each channel of zero mean and unit variance.

    Args:
        pixels: (N, 3, H, W) in [-1, 1].
        side: Pixels of the square's side.
        mean, std: Of each channel, for values in [0, 1].

    Returns:
        (N, 3, side, side) float32.
    """
    unit = (resize(pixels, side) + 1) / 2
    return (unit - unit.new_tensor(mean).view(3, 1, 1)) / unit.new_tensor(std).view(3, 1, 1)


class ImageEncoder(nn.Module):
    """A frozen CLIP vision tower and what its pictures go through before it.

    Args:
        tower: ``CLIPVisionModelWithProjection``.
        mean, std: Of each channel, for values in [0, 1].
        resize: One of ``RESIZES``.

    Raises:
        BadRequest: there is no such resize.
    """

    def __init__(
        self, tower: Any, mean: Sequence[float] = MEAN, std: Sequence[float] = STD, resize: str = "blurred_bicubic"
    ) -> None:
        super().__init__()
        if resize not in RESIZES:
            raise BadRequest(f"resize={resize} is no way to resize pictures.{nearest(resize, RESIZES)}")
        self.tower = tower.eval().requires_grad_(False)
        self.mean, self.std, self.resize = tuple(mean), tuple(std), RESIZES[resize]

    @property
    def features(self) -> int:
        """D."""
        return int(self.tower.config.projection_dim)

    def check_width(self, width: int, key: str) -> None:
        """Raise BadRequest, which names the user's ``key``, unless D is what the reader's weights read."""
        if self.features != width:
            raise BadRequest(
                f"The image encoder makes {self.features} features, but these weights read {width}. Give the encoder "
                f"that they were trained with: {key}=..."
            )

    @torch.no_grad()
    def encode(self, pixels: Tensor, images_at_once: int = 16) -> Tensor:
        """The projected class token (N, D) of pictures (N, 3, H, W) in [-1, 1]; its length is not normalised.

        On the device and in the dtype of the tower, without gradients; pictures are prepared in float32.
        """
        device, side = self.tower.device, self.tower.config.image_size
        with torch.autocast(device.type, enabled=False):
            return torch.cat(
                [
                    self.embed(preprocess(part.to(device), side, self.mean, self.std, self.resize))
                    for part in pixels.split(images_at_once)
                ]
            )

    def embed(self, prepared: Tensor) -> Tensor:
        """As ``encode``, of pictures (N, 3, side, side) that went through ``preprocess`` already."""
        found: Tensor = self.tower(prepared.to(self.tower.device, self.tower.dtype)).image_embeds
        return found


def load(path: str, *, dtype: torch.dtype = torch.float32, resize: str = "blurred_bicubic") -> ImageEncoder:
    """The image encoder of a CLIP model of transformers, whole or its vision half, or of a file in OpenCLIP's layout.

    Args:
        path: A folder, ``pkg://package/folder`` or a hub id, whose own mean, std and image size are taken (the
            published ones where a folder names none); or an OpenCLIP checkpoint of LAION's, ``.safetensors``,
            ``.bin`` or ``.pth``.

    Raises:
        BadRequest: there is none, or its weights are damaged, pickled code, missing, unexpected or of another shape.
    """
    file = loading.located(path)
    if file.is_file():
        return from_open_clip(read_tensors(file)[0], name=str(file), dtype=dtype, resize=resize)
    source = loading.found(path)
    if source is None:
        raise BadRequest(
            f"There is no image encoder in '{file}'. Give a CLIP model: a folder or a hub id, such as "
            "laion/CLIP-ViT-H-14-laion2B-s32B-b79K, or a file in OpenCLIP's layout."
        )
    from transformers import CLIPVisionModelWithProjection

    config, mean, std = _described(source)
    tower = loading.load_component(CLIPVisionModelWithProjection, source, "", dtype, unread=TEXT, config=config)
    return ImageEncoder(tower, mean, std, resize)


def from_open_clip(
    tensors: Mapping[str, Tensor],
    prefix: str = "",
    *,
    name: str = "the checkpoint",
    head_width: int | None = None,
    activation: str = "gelu",
    dtype: torch.dtype = torch.float32,
    resize: str = "blurred_bicubic",
) -> ImageEncoder:
    """The image encoder of tensors in OpenCLIP's layout, ``<prefix>visual.*``; arguments as for ``vision_tower``.

    Raises:
        BadRequest: tensors are missing, unexpected or of another shape; all are named.
    """
    tower = vision_tower(tensors, prefix, name=name, head_width=head_width, activation=activation, dtype=dtype)
    return ImageEncoder(tower, resize=resize)


def _described(source: str) -> tuple[Any, Sequence[float], Sequence[float]]:
    """The vision half's configuration, and the mean and std that pictures are prepared with."""
    from transformers import AutoConfig, CLIPConfig, CLIPVisionConfig

    try:
        with loading.quiet():
            config = AutoConfig.from_pretrained(source)
            mean, std = _statistics(source)
    except Exception as error:  # OSError, ValueError, KeyError: transformers raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise BadRequest(
            f"The image encoder '{source}' cannot be read ({type(error).__name__}: {reason}). Give a folder or a hub "
            "id of a CLIP model, whole or its vision half."
        ) from error
    if isinstance(config, CLIPConfig):
        whole, config = config, config.vision_config
        # The half's own may have been left at its default; the weights are as wide as the whole says.
        config.projection_dim = whole.projection_dim
    if not isinstance(config, CLIPVisionConfig):
        raise BadRequest(f"The model '{source}' is a {config.model_type}. Give a CLIP model, whole or its vision half.")
    return config, mean, std


def _statistics(source: str) -> tuple[Sequence[float], Sequence[float]]:
    if Path(source).is_dir() and not (Path(source) / "preprocessor_config.json").is_file():
        return MEAN, STD
    processor = loading.picture_processor("CLIPImageProcessor").from_pretrained(source)
    return processor.image_mean, processor.image_std
