"""Which frames a judge is shown."""

from __future__ import annotations

from collections.abc import Sequence

PER_SCENE = 4
"""Frames that a judge sees of every scene."""


def scene_indices(spans: Sequence[range], per_scene: int = PER_SCENE) -> list[list[int]]:
    """For each scene, frames evenly inside its own span; fewer where the scene is shorter, none twice."""
    chosen = []
    for span in spans:
        count = min(per_scene, len(span))
        chosen.append([span[(2 * i + 1) * len(span) // (2 * count)] for i in range(count)])
    return chosen


def published_indices(frames: int, scenes: int) -> list[int]:
    """The frames that the published evaluation of multi-scene video shows: every d-th from the second on.

    It disregards where scenes begin and never shows the tail; of 4 x ``scenes`` frames it takes one less.

    Raises ValueError for fewer frames than that.
    """
    wanted = PER_SCENE * scenes
    return list(range(1, frames, frames // wanted))[:wanted]
