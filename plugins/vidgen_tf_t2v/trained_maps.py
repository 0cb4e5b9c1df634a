"""The maps that a training reads: those that its data brings, and those that the frames themselves tell.

Images may have maps where videos have none: what images teach of a condition holds for every frame of a video.
B samples, F frames, c channels of a map, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vidgen_core.data.sample import Batch, stack
from vidgen_core.errors import BadRequest, nearest
from vidgen_tf_t2v.extract import OF_FRAMES
from vidgen_tf_t2v.map_encoder import CHANNELS

KEY = "tf_t2v.trained_conditions"


def check_trained(conditions: Sequence[str]) -> tuple[str, ...]:
    """The conditions as they are. Raises BadRequest for one that nobody knows, or one twice."""
    if isinstance(conditions, str):
        raise BadRequest(f"{KEY}={conditions} is no list. Write {KEY}=[{conditions}].")
    for name in conditions:
        if name not in CHANNELS:
            raise BadRequest(f"{KEY}: there is no condition '{name}'.{nearest(name, CHANNELS)}")
        if list(conditions).count(name) > 1:
            raise BadRequest(f"{KEY} names '{name}' twice. Name it once.")
    return tuple(conditions)


def check_brought(conditions: Sequence[str], extras: frozenset[str] | None) -> None:
    """Raise BadRequest for a condition whose maps neither the data brings nor the frames tell: nothing would teach it.

    Args:
        extras: What the data may bring; None: it does not say.
    """
    for name in conditions:
        if extras is not None and name not in extras and name not in OF_FRAMES:
            raise BadRequest(
                f"{KEY} names '{name}', but the data brings no maps of it, so it would learn nothing. Give them, for "
                f"files data.image_maps.{name}=FOLDER beside data.images=..., or leave '{name}' out. Frames tell "
                f"{', '.join(OF_FRAMES)} by themselves."
            )


def height_and_width(batch: Batch) -> tuple[int, int]:
    """Of the frames of a batch."""
    frames = batch.samples[0].frames
    assert frames is not None  # whoever reads maps has refused the latent cache
    return frames.shape[-2], frames.shape[-1]


def trained_maps(batch: Batch, conditions: Sequence[str]) -> dict[str, Tensor]:
    """Condition -> its maps (B, c, F, H, W), float32, of those conditions that this batch has maps of.

    Maps come from ``Sample.extra``, where all samples bring them under the condition's name, else from the frames. Of a
    batch that has none, such as videos without depth, nothing is told.

    Raises:
        BadRequest: what the data brings are no maps of that condition, or pixels were left out by the latent cache.
    """
    found = {}
    for name in conditions:
        if all(name in sample.extra for sample in batch.samples):
            maps = stack(batch.samples, name).float().transpose(1, 2)
            if maps.ndim != 5 or maps.shape[1:3] != (CHANNELS[name], batch.num_frames):
                sample = batch.samples[0]
                raise BadRequest(
                    f"The data brings '{name}' of '{sample.name}' as {tuple(sample.extra[name].shape)}. It must be "
                    f"({batch.num_frames}, {CHANNELS[name]}, height, width)."
                )
            found[name] = maps
        elif name in OF_FRAMES:
            frames = [sample.frames for sample in batch.samples if sample.frames is not None]
            if len(frames) < len(batch):
                raise BadRequest(f"{KEY}=[{name}] looks at pixels. Use trainer.cache=none.")
            found[name] = torch.stack([OF_FRAMES[name](clip) for clip in frames]).transpose(1, 2)
    return found
