"""Depth maps that the user supplies, from arrays, pictures or a video: larger is nearer, the scale does not matter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidgen_core.data.image_folder import natural
from vidgen_core.data.pixels import LUMA
from vidgen_core.errors import BadRequest

KEYS = ("nearness", "depth")
"""Under which names an .npz file may hold the maps, the first found; a single array may have any name."""

COLOURED = (32, 0.001)
"""A video is in colour where its channels differ by more than 32 of 255 in more than this share of it: compression
gives grey a tint of a few, and a small thing of bright colour is enough to tell a clip from its depth."""


class InColour(BadRequest):
    """What was to hold depth shows colours: most likely a clip itself."""


def read_maps(path: str | Path, inverted: bool = False) -> Tensor:
    """The depth maps of a clip: relative inverse depth, as MiDaS predicts it.

    Args:
        path: An ``.npy`` or ``.npz`` file with an array (F, H, W); an 8 or 16 bit grey ``.png`` picture, or a folder
            of them, one for each frame in natural order (2 before 10); any other file is read as a video in grey.
        inverted: The file holds distance, larger is farther, and d becomes 1 / d. The reciprocal rather than -d,
            because the condition is what inverse depth looks like: under -d a far background, of which it shows
            next to nothing, would take up most of its range. Infinitely far is allowed, and is 0.

    Returns:
        (F, H', W') float32, finite, on the CPU.

    Raises:
        InColour: pictures or a video show more than grey.
        BadRequest: nothing can be read there, or it is no maps of finite numbers.
    """
    path = Path(path).expanduser()
    maps = _read(path)
    if maps.ndim != 3 or 0 in maps.shape or maps.dtype.kind not in "buif":
        shape = f"{maps.dtype} of shape {maps.shape}"
        raise BadRequest(f"The depth maps in '{path}' are {shape}. They are real numbers (frames, height, width).")
    with np.errstate(over="ignore"):  # what is too large for float32 is told as infinity
        maps = maps.astype(np.float32)
    if inverted:
        _refuse(path, ~(maps > 0), "a distance that is not above 0, which has no inverse")
        maps = 1 / maps
    _refuse(path, ~np.isfinite(maps), "NaN or infinity")
    return torch.from_numpy(maps)


def _refuse(path: Path, wrong: np.ndarray, what: str) -> None:
    frames = np.flatnonzero(wrong.any(axis=(1, 2)))
    if len(frames):
        raise BadRequest(f"The depth map of frame {frames[0]} in '{path}' holds {what}. Mend the file.")


def _read(path: Path) -> np.ndarray:
    kind = path.suffix.lower()
    if path.is_dir():
        found = [file for file in path.iterdir() if file.suffix.lower() == ".png"]
        files = sorted(found, key=lambda file: natural(file.name))
        if not files:
            raise BadRequest(f"The folder '{path}' holds no .png depth maps. Put one there for each frame.")
        return _pictures(files)
    if not path.is_file():
        raise BadRequest(f"There are no depth maps '{path}'. Give an .npy, .npz or video file, or a folder of .png.")
    if kind == ".png":
        return _pictures([path])
    return _array(path) if kind in (".npy", ".npz") else _video(path)


def _array(path: Path) -> np.ndarray:
    try:
        held = np.load(path, allow_pickle=False)
        if isinstance(held, np.ndarray):
            return held
        with held:
            key = next((key for key in KEYS if key in held), held.files[0] if len(held.files) == 1 else None)
            found = None if key is None else np.asarray(held[key])
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged file
        reason = " ".join(str(error).split())[:120]
        raise BadRequest(f"The depth maps in '{path}' cannot be read ({reason}). Is it a damaged file?") from error
    if found is None:
        raise BadRequest(f"'{path}' has no array '{KEYS[0]}' or '{KEYS[1]}', but {sorted(held.files)}. Name one so.")
    return found


def _pictures(files: list[Path]) -> np.ndarray:
    maps = [_grey(file) for file in files]
    for file, grey in zip(files, maps, strict=True):
        if grey.shape != maps[0].shape:
            raise BadRequest(f"'{file}' is {grey.shape} and '{files[0].name}' is {maps[0].shape}. Make all one size.")
    return np.stack(maps)


def _grey(file: Path) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as image:
            # Grey of 8 or 16 bits stays as it is; grey in a palette or in three equal channels is grey all the same.
            grey = image.mode in ("1", "L", "F") or image.mode.startswith("I")
            pixels = np.asarray(image if grey else image.convert("RGB"))
    except Exception as error:  # Pillow raises OSError, SyntaxError and ValueError for a damaged file
        raise BadRequest(f"The depth map '{file}' cannot be read as a picture. Is it a damaged file?") from error
    if pixels.ndim == 2:
        return pixels
    if (pixels != pixels[..., :1]).any():
        raise InColour(f"The depth map '{file}' is in colour. Nearness is grey: white is near, black is far.")
    return pixels[..., 0]


def _video(path: Path) -> np.ndarray:
    from vidgen_core.video import read_video

    frames = read_video(path)
    most, share = COLOURED
    if (frames.max(axis=-1) - frames.min(axis=-1) > most).mean() > share:
        raise InColour(
            f"'{path}' is a video in colour, which is no depth. Nearness is grey: white is near, black is far. Leave "
            "depth.maps out, and the depth of the clip is estimated."
        )
    return frames @ np.array(LUMA, dtype=np.float32)
