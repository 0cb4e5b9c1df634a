"""The picture whose image embedding says what a video shows: the user's image, or the middle frame of a video."""

from __future__ import annotations

import torch
from torch import Tensor

from vidgen_core.data.clips import read_picture
from vidgen_core.data.pixels import to_model_range
from vidgen_core.data.sample import Batch
from vidgen_core.errors import BadRequest
from vidgen_core.request import Request
from vidgen_core.video import VideoReader


def check_reference(request: Request) -> None:
    """Raise BadRequest where an image and a video are both given, or what is given cannot be read."""
    if request.image is not None and request.video is not None:
        raise BadRequest("image= and video= are both given, but one picture says what is shown. Leave one out.")
    if request.image is not None:
        read_picture(request.image, f"image={request.image}")
    if request.video is not None:
        VideoReader(request.video)


def reference(request: Request) -> Tensor | None:
    """The picture (1, 3, H, W), in [-1, 1], that a request names, or None."""
    if request.image is not None:
        pixels = read_picture(request.image, f"image={request.image}")
    elif request.video is not None:
        reader = VideoReader(request.video)
        pixels = reader.frames([len(reader) // 2])
    else:
        return None
    return to_model_range(torch.from_numpy(pixels).permute(0, 3, 1, 2))


def middle_frames(batch: Batch) -> Tensor:
    """The middle frame of every clip of a batch, (B, 3, H, W) in [-1, 1]. Raises BadRequest where pixels were left."""
    frames = [sample.frames for sample in batch.samples if sample.frames is not None]
    if len(frames) < len(batch):
        raise BadRequest("method=tf_t2v looks at pixels, which the latent cache does not keep. Use trainer.cache=none.")
    return to_model_range(torch.stack([clip[len(clip) // 2] for clip in frames]))
