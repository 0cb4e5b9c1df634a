"""Maps that belong to images, such as depth: a folder for each condition, with a file for each image under its name.

c channels of a map, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidgen_core.data.epochs import Broken
from vidgen_core.data.pixels import LUMA, fit
from vidgen_core.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor

ENDINGS = (".npy", ".png", ".tif", ".tiff")
"""Files that are looked for, in this order: an array as it is, or a picture whose values become 0..1."""

CHANNELS = {
    "depth": 1,
    "sketch": 1,
    "single_sketch": 1,
    "canny": 1,
    "motion": 2,
    "local_image": 3,
    "masked": 4,
}
"""Conditions in common use, and c of each; of any other, c is what its files hold."""


class ImageMaps:
    """The maps of the images of one folder or list.

    Args:
        folders: Condition -> folder, in which ``a/b.npy`` or ``a/b.png`` is the map of the image ``a/b.jpg``.

    Raises:
        BadRequest: a folder is not there.
    """

    def __init__(self, folders: Mapping[str, str]) -> None:
        self.folders = {name: Path(folder).expanduser() for name, folder in folders.items()}
        for name, folder in self.folders.items():
            if not folder.is_dir():
                raise BadRequest(f"data.image_maps.{name}={folder} is no folder. Give the one that holds the maps.")

    def read(self, image: str, shape: tuple[int, int], size: tuple[int, int], crop: str) -> dict[str, Tensor]:
        """Condition -> its map (1, c, *size), float32, scaled and cut as the image is.

        Args:
            image: Its path as the folder or list has it.
            shape: The image's own height and width, which its maps are stretched to first: estimators often make
                squares.

        Of pictures the brightness counts where the condition has one channel, and the colours where it has three.

        Raises:
            Broken: there is no map, it cannot be read, or it has another number of channels than its condition.
        """
        import torch

        maps = {name: torch.from_numpy(self._array(name, folder, image)) for name, folder in self.folders.items()}
        return {name: fit(fit(found[None], shape, "stretch"), size, crop) for name, found in maps.items()}

    def _array(self, name: str, folder: Path, image: str) -> np.ndarray:
        place = folder / (Path(image).name if Path(image).is_absolute() else image)
        file = next((found for ending in ENDINGS if (found := place.with_suffix(ending)).is_file()), None)
        if file is None:
            raise Broken(f"it has no {name}: no '{place.with_suffix(ENDINGS[0])}', nor a picture of that name")
        try:
            array = _values(file, CHANNELS.get(name))
        except Exception as error:  # numpy and Pillow raise many kinds for a damaged file
            raise Broken(f"its {name} '{file}' cannot be read ({' '.join(str(error).split())[:120]})") from error
        array = array[None] if array.ndim == 2 else array
        if array.ndim != 3 or not np.isfinite(array).all():
            raise Broken(f"its {name} '{file}' is no finite array (channels, height, width)")
        if len(array) != CHANNELS.get(name, len(array)):
            raise Broken(f"its {name} '{file}' has {len(array)} channels instead of {CHANNELS[name]}")
        return np.ascontiguousarray(array, np.float32)


def _values(file: Path, channels: int | None) -> np.ndarray:
    if file.suffix == ".npy":
        array: np.ndarray = np.load(file, allow_pickle=False)
        return array
    from PIL import Image

    with Image.open(file) as opened:
        grey = opened.mode == "L" or opened.mode.startswith("I")
        pixels = np.asarray(opened if grey else opened.convert("RGB"))
    most = 255 if pixels.dtype == np.uint8 else 65535
    scaled = pixels.astype(np.float32) / most
    if channels == 1:
        return scaled if grey else scaled @ np.array(LUMA, np.float32)
    if grey:
        return np.repeat(scaled[None], 3, axis=0) if channels == 3 else scaled
    return scaled.transpose(2, 0, 1)
