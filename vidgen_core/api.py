"""vidgen from Python: the command line's keys as keyword arguments, a ``Video`` or files back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen_core import hookimpl
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from vidgen_core.run import FrameBlock
    from vidgen_core.sampling import Step


@dataclass(frozen=True)
class Video:
    """One finished video."""

    frames: np.ndarray  # (F, H, W, 3) uint8
    fps: int
    path: Path | None  # the mp4; None where the output group writes none
    folder: Path | None
    files: tuple[Path, ...]  # everything that was written


def generate(on_step: Callable[[Step, Tensor], None] | None = None, **keys: Any) -> Video:
    """Make one video: ``generate(method="...", prompt=["one", "two"], seed=7)``.

    Keys are those of the command line; nested ones are dictionaries, ``placement={"dtype": "bf16"}``, or
    ``**{"output.dir": "..."}``. ``method`` takes objects with hooks beside names: ``method=["...", Mine()]``. Several
    videos: call it again, or use the command line with ``prompts_file``.

    Args:
        on_step: Called after every sampling step with the step (``index``, ``total``, ``x0()``) and a copy of the
            latents (1, C, F, h, w), an ordinary tensor to keep or to change.

    Raises:
        BadRequest: for what cannot be done; VidgenError for a run that failed.
    """
    composed = compose([], keys)
    if len(composed.request.videos) > 1:
        raise BadRequest("generate() makes one video; prompts_file holds several. Call it once for each.")
    for note in composed.notes:
        print(note, file=sys.stderr)
    from vidgen_core import run

    if composed.config["resume"]:
        raise BadRequest("generate() returns the frames that it makes; resume a run with `vidgen ... resume=true`.")
    collector = _Collector()
    observers = {"collector": collector, **({"on_step": _Callback(on_step)} if on_step else {})}
    files = tuple(Path(file) for file in run.generate(composed, observers))
    path = next((file for file in files if file.suffix == ".mp4"), None)
    folder = path.parent if path else files[0].parent if files else None
    return Video(collector.frames(), composed.config["fps"], path, folder, files)


def train(**keys: Any) -> tuple[Path, ...]:
    """Train what the keys of ``vidgen train`` describe, in one process; returns the files and folders of the result.

    Raises:
        BadRequest: for what cannot be done; VidgenError for a training that failed.
    """
    composed = compose([], keys, entry="train")
    for note in composed.notes:
        print(note, file=sys.stderr)
    from vidgen_core.train import train as run_training

    return tuple(run_training(composed))


class _Callback:
    def __init__(self, function: Callable[[Step, Tensor], None]) -> None:
        self._function = function

    @hookimpl
    def on_step(self, step: Step, latents: Tensor) -> None:
        import torch

        # A run is in inference mode, whose tensors cannot be used in autograd later.
        with torch.inference_mode(False), torch.no_grad():
            self._function(step, latents.clone())


class _Collector:
    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []

    @hookimpl
    def deliver(self, block: FrameBlock) -> None:
        self._blocks.append(block.pixels()[0])

    def frames(self) -> np.ndarray:
        import numpy as np

        return np.concatenate(self._blocks)
