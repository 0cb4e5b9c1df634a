"""vidgen from Python: the command line's keys as keyword arguments, a ``Video`` back."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen_core import hookimpl
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np

    from vidgen_core.run import FrameBlock


@dataclass(frozen=True)
class Video:
    """One finished video."""

    frames: np.ndarray  # (F, H, W, 3) uint8
    fps: int
    path: Path | None  # the mp4; None where the output group writes none
    folder: Path | None
    files: tuple[Path, ...]  # everything that was written


def generate(**keys: Any) -> Video:
    """Make one video: ``generate(method="...", prompt=["one", "two"], seed=7)``.

    Keys are those of the command line; nested ones are dictionaries, ``placement={"dtype": "bf16"}``, or
    ``**{"output.dir": "..."}``. Several videos: call it again, or use the command line with ``prompts_file``.

    Raises:
        BadRequest: for what cannot be done; VidgenError for a run that failed.
    """
    composed = compose([], keys)
    if len(composed.request.videos) > 1:
        raise BadRequest("generate() makes one video; prompts_file holds several. Call it once for each.")
    for note in composed.notes:
        print(note, file=sys.stderr)
    from vidgen_core import run

    collector = _Collector()
    files = tuple(Path(file) for file in run.generate(composed, {"collector": collector}))
    path = next((file for file in files if file.suffix == ".mp4"), None)
    folder = path.parent if path else files[0].parent if files else None
    return Video(collector.frames(), composed.config["fps"], path, folder, files)


class _Collector:
    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []

    @hookimpl
    def deliver(self, block: FrameBlock) -> None:
        # The frames as the writer quantises them: rounded, so that Video.frames and a lossless file agree.
        pixels = (block.frames[0].clamp(0, 1) * 255).round().byte()
        self._blocks.append(pixels.permute(0, 2, 3, 1).cpu().numpy())

    def frames(self) -> np.ndarray:
        import numpy as np

        return np.concatenate(self._blocks)
