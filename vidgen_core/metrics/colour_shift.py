"""Colour shift: how much the colours of a video change from frame to frame, whatever moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vidgen_core.metrics.footage import no_score

if TYPE_CHECKING:
    from vidgen_core.metrics.footage import Footage


class ColourShift:
    """The earth mover's distance between the values of a frame's pixels and those of the next, in 0..255.

    The mean over neighbours and over red, green and blue. What moves keeps its values, and so costs nothing; what
    flickers or fades costs what its values change.
    """

    columns = numbers = ("colour_shift",)
    needs_captions = False

    def score(self, footage: Footage) -> dict[str, float | None]:
        """The distance of neighbours, and ``colour_shift_first``, that of every later frame to the first."""
        if footage.count == 1:
            no_score("colour_shift", footage, "has one frame and none that could shift")
            return {"colour_shift": None}
        frames = footage.frames
        # In one dimension, and of as many pixels each, sorted values are moved onto sorted values.
        values = np.sort(frames.reshape(len(frames), -1, 3), axis=1).astype(np.float64)
        return {
            "colour_shift": float(np.abs(np.diff(values, axis=0)).mean()),
            "colour_shift_first": float(np.abs(values[1:] - values[0]).mean()),
        }
