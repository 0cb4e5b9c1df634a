"""Maps that the user supplies: depth, a sketch, motion and other conditions of the frames, from arrays or pictures.

F frames, c channels of a map, H W its size in pixels, which need not be the video's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidgen_core.data.clips import IMAGES, read_picture
from vidgen_core.data.pixels import LUMA
from vidgen_core.errors import BadRequest
from vidgen_core.video import VideoReader
from vidgen_tf_t2v import map_encoder

HISTOGRAM = "histogram"
"""Of colours, for every frame: a condition without a place, which becomes a token."""

CHANNELS = {**map_encoder.CHANNELS, HISTOGRAM: 156}
"""The conditions that are known, and c of each."""


def is_array(path: str) -> bool:
    """Whether a file holds maps as the network reads them, instead of pictures or a video."""
    return Path(path).suffix.lower() == ".npy"


def is_picture(path: str) -> bool:
    """Whether a file is one picture, by its name."""
    return Path(path).suffix.lower() in IMAGES


def read_map(name: str, path: str, num_frames: int, key: str = "") -> Tensor:
    """A condition's maps (c, F, H, W), float32, as the network reads them.

    Args:
        path: An ``.npy`` file with an array (F, c, H, W), which is taken as it is, or (F, H, W) where c is 1, or (F, c)
            for histograms; a picture for all frames; or a video. Of pictures the brightness counts where c is 1 and the
            colours where it is 3, in [0, 1].
        num_frames: F; a single map serves all frames, and more maps than frames are cut.
        key: What messages call the file; empty: its path.

    Raises:
        BadRequest: nothing can be read there, or too few maps, or maps of another number of channels.
    """
    file, channels, key = Path(path).expanduser(), CHANNELS[name], key or path
    maps = _array(file, key) if is_array(path) else _pixels(file, channels, num_frames, key)
    if maps.ndim == 3:
        maps = maps[:, None]
    elif maps.ndim == 2 and name == HISTOGRAM:
        maps = maps[:, :, None, None]
    if maps.ndim != 4 or maps.shape[1] != channels:
        raise BadRequest(f"{key} holds an array {maps.shape}. It must be (frames, {channels}, height, width).")
    if len(maps) == 1:
        maps = maps.repeat(num_frames, axis=0)
    if len(maps) < num_frames:
        raise BadRequest(f"{key} holds {len(maps)} maps for {num_frames} frames. Give one for each, or one for all.")
    found = torch.from_numpy(maps[:num_frames]).float().transpose(0, 1)
    if not torch.isfinite(found).all():
        raise BadRequest(f"{key} holds NaN or infinity. Mend the file.")
    return found


def _array(file: Path, key: str) -> np.ndarray:
    try:
        held = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadRequest(f"{key} cannot be read ({' '.join(str(error).split())[:120]}). Is it damaged?") from error
    if not isinstance(held, np.ndarray) or held.dtype.kind not in "buif" or not held.size:
        raise BadRequest(f"{key} holds no array of real numbers.")
    with np.errstate(over="ignore"):  # what becomes infinite is refused as that
        return held.astype(np.float32)  # also from types that torch does not know


def _pixels(file: Path, channels: int, num_frames: int, key: str) -> np.ndarray:
    if channels not in (1, 3):
        raise BadRequest(f"{key}: maps of {channels} channels are no pictures. Give an array in an .npy file.")
    if is_picture(str(file)):
        frames = read_picture(file, key)
    else:
        reader = VideoReader(file)
        frames = reader.frames(range(min(num_frames, len(reader))))
    colours: np.ndarray = frames.astype(np.float32) / 255
    return (colours @ np.array(LUMA, np.float32))[:, None] if channels == 1 else colours.transpose(0, 3, 1, 2)
