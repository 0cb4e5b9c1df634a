"""Which frames of a video a sample shows."""

from __future__ import annotations


def segment_indices(total: int, count: int) -> tuple[int, ...]:
    """``count`` indices spread over a segment of ``total`` frames, each about in the middle of its share.

    They never reach ``total``; where frames are too few, some come more than once. Python's ``round`` goes to the even
    neighbour, as the published sampling does.

    Raises ValueError for a segment without frames.
    """
    if total < 1:
        raise ValueError(f"a segment of {total} frames shows nothing")
    stride = (total - 1) / count
    first = int(stride / 2)
    return tuple(first + round(stride * i) for i in range(count))


def clip_indices(total: int, count: int, step: float, start: float) -> tuple[int, ...] | None:
    """``count`` indices, ``step`` frames apart, of a clip in a video of ``total`` frames; None where it is too short.

    Args:
        step: Frames of the video from one frame of the clip to the next; below 1, frames come more than once.
        start: Where the clip begins, 0 for the earliest place to 1 (exclusive) for the latest.
    """
    reach = round(step * (count - 1))
    places = total - reach
    if places < 1:
        return None
    first = int(start * places)
    return tuple(first + round(step * i) for i in range(count))


def even_indices(total: int, count: int) -> tuple[int, ...]:
    """``count`` indices from the first to the last of ``total`` frames, a half rounded up; one frame is the first."""
    steps = max(count - 1, 1)
    return tuple((2 * k * (total - 1) + steps) // (2 * steps) for k in range(count))
