"""What a long video may begin with: a user's image, or a user's video that goes on. H W pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vidgen_core.errors import BadRequest
from vidgen_core.request import Request

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Start:
    """The known first frames of every video of a request.

    Args:
        request: Names the image or the video, the size and how many frames are wanted.
        fit: ``exact`` refuses another size; ``stretch`` and ``resize_center`` scale.

    Raises:
        BadRequest: there is no such file, it cannot be read, or it has another size.
    """

    def __init__(self, request: Request, fit: str) -> None:
        self.size, self.fit = (request.height, request.width), fit
        self.image, self.video = request.image, request.video
        self._reader: object = None
        self.count = 1 if self.image is not None else len(self.reader)
        self._check_size()

    @property
    def path(self) -> str:
        """The file, as it was named."""
        return str(self.image if self.image is not None else self.video)

    @property
    def reader(self):  # type: ignore[no-untyped-def]
        """The video's reader, opened once."""
        if self._reader is None:
            from vidgen_core.video import VideoReader

            self._reader = VideoReader(self.path)
        return self._reader

    def pixels(self, frames: Sequence[int]) -> np.ndarray:
        """Frames (F, H, W, 3) uint8, upright, of the file's own size."""
        if self.image is None:
            found: np.ndarray = self.reader.frames(frames)
            return found
        from vidgen_core.data.clips import read_picture

        return read_picture(self.path, f"image={self.path}")

    def read(self, frames: range) -> Tensor:
        """Frames (1, F, 3, H, W) float in [0, 1], of the request's size."""
        import torch

        from vidgen_core.data.pixels import fit

        pixels = torch.from_numpy(self.pixels(frames)).permute(0, 3, 1, 2)
        pixels = pixels if self.fit == "exact" else fit(pixels, self.size, self.fit)
        return (pixels.float() / 255)[None]

    def _check_size(self) -> None:
        height, width = self.pixels([0]).shape[1:3]
        if self.fit == "exact" and (height, width) != self.size:
            key = "image" if self.image is not None else "video"
            raise BadRequest(
                f"{key}={self.path} is of {height}x{width} pixels, but the video is to be of "
                f"{self.size[0]}x{self.size[1]}. Give height={height} width={width}, or let it be scaled: "
                "streaming.fit=resize_center (or stretch)."
            )
