"""What a run is cut into: windows of frames that are denoised together, groups of windows, and blocks of frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vidgen_core import conditioning
from vidgen_core.errors import VidgenError

if TYPE_CHECKING:
    import numpy as np

    from vidgen_core.models.backbone import ModelInput


@dataclass
class Window:
    """A span of absolute frames denoised together, of which ``keep`` is delivered.

    ``index`` counts windows over the whole video, ``group`` counts groups: both key noise and the journal.
    """

    span: range
    keep: range
    index: int = 0
    group: int = 0
    memory: dict[str, Any] = field(default_factory=dict)
    condition: conditioning.Condition = field(default_factory=conditioning.Condition)
    latents: Tensor | None = None  # B C F h w, F = len(span)
    given: Callable[[], Tensor] | None = (
        None  # reads known frames (1 or B, F, 3, H, W) in [0, 1]: delivered as they are
    )
    first_step: int = 0  # the sampling step whose noise level the first latents have
    inputs: dict[tuple[str, ...], ModelInput] = field(default_factory=dict)  # per set of branches, made once

    def release(self) -> None:
        """Drop the tensors of a window that has left: memory must not grow with the number of windows."""
        self.latents = None
        self.memory, self.inputs, self.condition = {}, {}, conditioning.Condition()

    @property
    def kept(self) -> slice:
        """Where ``keep`` lies inside ``span``."""
        return slice(self.keep.start - self.span.start, self.keep.stop - self.span.start)


@dataclass(frozen=True)
class Group:
    """Windows that are sampled jointly and share their noise where they overlap."""

    windows: tuple[Window, ...]


def check_groups(groups: Sequence[Group], num_frames: int, owner: str) -> None:
    """Raise VidgenError unless the windows of a plan, of whom ``owner`` made it, deliver every frame once, in order."""
    expected = 0
    for index, window in enumerate(window for group in groups for window in group.windows):
        inside = window.span.start <= window.keep.start < window.keep.stop <= window.span.stop
        if window.index != index or window.keep.start != expected or not inside:
            raise VidgenError(
                f"The plan of '{owner}' is wrong at its window {index}: index {window.index}, {window.span}, of which "
                f"it keeps {window.keep}. Windows count from 0, and what they keep follows frame by frame."
            )
        expected = window.keep.stop
    if expected != num_frames:
        raise VidgenError(f"The plan of '{owner}' delivers {expected} frames of {num_frames}.")


@dataclass(frozen=True)
class FrameBlock:
    """Finished frames on their way out: ``frames`` (B, F, 3, H, W) float in [0, 1], F = len(span), on the CPU."""

    span: range
    frames: Tensor

    def pixels(self) -> np.ndarray:
        """(B, F, H, W, 3) uint8: rounded to the nearest of 256 levels, as every file and every caller gets them."""
        levels = (self.frames.clamp(0, 1) * 255).round().byte()
        array: np.ndarray = levels.permute(0, 1, 3, 4, 2).cpu().numpy()
        return array
