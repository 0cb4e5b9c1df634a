"""Maps of spatial conditions made from what frames show: edges, depth, the first frame, the codec's motion.

F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidgen_core.data.clips import IMAGES
from vidgen_core.errors import BadRequest
from vidgen_core.models.depth_estimator import estimate
from vidgen_core.video import VideoReader
from vidgen_core.video_frame import orientation
from vidgen_tf_t2v.reference import read_picture

EDGES = (100, 200)
"""Thresholds of the edge detector, for brightness in 0..255."""

ESTIMATOR = "Intel/dpt-large"
"""MiDaS v3, as the released weights were trained on."""

DEPTH_SCALE, DEEPEST = 20.0, 10.0
"""What the released weights' depth is divided by, and where it is cut."""


def canny(frames: Tensor) -> Tensor:
    """Edges (F, 1, H, W), 0 or 1, of frames (F, 3, H, W) uint8 (Canny 1986, OpenCV's)."""
    import cv2

    pictures = frames.permute(0, 2, 3, 1).numpy()
    edges = [cv2.Canny(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), *EDGES) for picture in pictures]
    return torch.from_numpy(np.stack(edges)[:, None] / 255).float()


def local_image(frames: Tensor) -> Tensor:
    """The first frame (F, 3, H, W) in [0, 1], for every frame."""
    return (frames[:1].float() / 255).expand(len(frames), -1, -1, -1)


def depth(frames: Tensor, estimator: str | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Inverse depth (F, 1, h', w'), near is large, of frames (F, 3, H, W) uint8, on the released weights' scale.

    Raises BadRequest where there is no such estimator.
    """
    found = estimate(frames, estimator or ESTIMATOR, device)
    return (found[:, None] / DEPTH_SCALE).clamp(0, DEEPEST)


def motion(path: str, num_frames: int) -> Tensor:
    """(F, 2, H, W): by how many pixels, right and down, the codec moved every block since the frame before.

    What the codec painted anew, such as all of the first frame, has moved by nothing. Raises BadRequest for a file that
    cannot be read, has fewer frames, or is turned.
    """
    import av

    maps: list[np.ndarray] = []
    try:
        with av.open(path) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"flags2": "+export_mvs"}
            for frame in container.decode(stream):
                if any(orientation(frame)):
                    raise BadRequest(f"tf_t2v.extract.motion={path} is a turned video. Write it upright first.")
                maps.append(_moved(frame))
                if len(maps) == num_frames:
                    break
    except (OSError, ValueError, IndexError, av.FFmpegError) as error:
        raise BadRequest(f"tf_t2v.extract.motion={path} cannot be read as video ({error}).") from error
    if len(maps) < num_frames:
        raise BadRequest(f"tf_t2v.extract.motion={path} has {len(maps)} frames for {num_frames}. Ask for as many.")
    return torch.from_numpy(np.stack(maps))


def _moved(frame: Any) -> np.ndarray:
    moved = np.zeros((2, frame.height, frame.width), np.float32)
    vectors = frame.side_data.get("MOTION_VECTORS")
    for vector in () if vectors is None else vectors.to_ndarray():
        if vector["source"] < 0:  # of an earlier frame
            top, left = int(vector["dst_y"]) - vector["h"] // 2, int(vector["dst_x"]) - vector["w"] // 2
            block = slice(max(top, 0), top + int(vector["h"])), slice(max(left, 0), left + int(vector["w"]))
            moved[0][block] = int(vector["dst_x"]) - int(vector["src_x"])
            moved[1][block] = int(vector["dst_y"]) - int(vector["src_y"])
    return moved


OF_FRAMES: dict[str, Callable[[Tensor], Tensor]] = {"canny": canny, "local_image": local_image}
"""Condition -> what makes its maps of the frames (F, 3, H, W) uint8 of one clip, cheaply enough for a training."""

EXTRACTED = (*OF_FRAMES, "depth", "motion")
"""The conditions that can be made from a video."""


def check_extracted(paths: Mapping[str, str], maps: Mapping[str, str]) -> None:
    """Raise BadRequest for a condition that nobody can extract, one that has maps as well, or a missing file."""
    for name, path in paths.items():
        if name not in EXTRACTED:
            raise BadRequest(
                f"tf_t2v.extract.{name}: these can be made from a video: {', '.join(EXTRACTED)}. Others are given as a "
                f"file: tf_t2v.maps.{name}=..."
            )
        if name in maps:
            raise BadRequest(f"tf_t2v.extract.{name} and tf_t2v.maps.{name} are both given. Leave one out.")
        if not Path(path).expanduser().is_file():
            raise BadRequest(f"tf_t2v.extract.{name}={path}: there is no such file.")


def extracted(
    name: str, path: str, num_frames: int, estimator: str | None = None, device: torch.device | str = "cpu"
) -> Tensor:
    """A condition's maps (c, F, H, W), float32, made from a video, or from a picture for all frames.

    Raises BadRequest where the file cannot be read or has fewer frames.
    """
    file, key = Path(path).expanduser(), f"tf_t2v.extract.{name}={path}"
    if name == "motion":
        return motion(str(file), num_frames).transpose(0, 1)
    if file.suffix.lower() in IMAGES:
        pictures = np.repeat(read_picture(file, key), num_frames, axis=0)
    else:
        reader = VideoReader(file)
        if len(reader) < num_frames:
            raise BadRequest(f"{key} has {len(reader)} frames for {num_frames}. Ask for as many.")
        pictures = reader.frames(range(num_frames))
    frames = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
    made = depth(frames, estimator, device) if name == "depth" else OF_FRAMES[name](frames)
    return made.transpose(0, 1)
