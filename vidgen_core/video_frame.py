"""A decoded frame as pixels: upright, RGB, of the size that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def pixels(frame: Any, size: tuple[int, int] | None = None) -> np.ndarray:
    """A frame of PyAV as (H, W, 3), uint8 RGB, turned and mirrored as a player shows it.

    Args:
        size: Height and width that the whole upright frame is scaled to, whatever its aspect; None keeps its own.
    """
    transposed, up, left = orientation(frame)
    if size is not None:
        frame = scaled(frame, *(size[::-1] if transposed else size))
    found: np.ndarray = frame.to_ndarray(format="rgb24")
    if transposed:
        found = found.swapaxes(0, 1)
    return found[:: -1 if up else 1, :: -1 if left else 1]


def orientation(frame: Any) -> tuple[bool, bool, bool]:
    """What brings a frame of PyAV upright: to exchange rows and columns, then to turn over the rows, and the columns.

    Phones write video as their sensor lies, with a matrix that a player applies; it may mirror, too. An angle between
    quarter turns is taken for the nearest one.
    """
    import numpy as np
    from av.sidedata.sidedata import SideDataContainer

    container: Any = SideDataContainer
    try:
        # ``frame.side_data`` and the frame would refer to one another, and both and the decoder's threads would stay.
        matrix = container(frame).get("DISPLAYMATRIX")
    except ValueError:  # data of a kind that PyAV has no name for, as in stereo video
        matrix = None
    if matrix is None:
        return False, False, False
    # A point goes from (x, y) to (a x + c y, b x + d y), rows counted downwards.
    a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    if abs(b) > abs(a):
        return True, b < 0, c < 0
    return False, d < 0, a < 0


def scaled(frame: Any, height: int, width: int) -> Any:
    """A frame of PyAV scaled to a size, as RGB, by the filter that decord applies for its ``width`` and ``height``.

    ``VideoFrame.reformat`` has the same scaler, but places the colour samples of yuv elsewhere.
    """
    from av.filter import Graph

    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        graph.add("scale", f"{width}:{height}:flags=bilinear"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    return graph.pull()
