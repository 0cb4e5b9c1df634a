"""Maps of spatial conditions made from what frames show: edges, strokes, depth, the first frame, the codec's motion.

F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidgen_core.data.clips import IMAGES, read_picture
from vidgen_core.errors import BadRequest
from vidgen_core.models.depth_estimator import estimate
from vidgen_core.video import VideoReader
from vidgen_core.video_frame import orientation

EDGES = (100, 200)
"""Thresholds of the edge detector, for brightness in 0..255."""

SURROUNDINGS, DIM = 0.01, 8.0
"""Of sketches: how far around a pixel is compared, in shorter sides; a brightness, 0..255, that noise stays below."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and spread of red, green and blue."""

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


def sketch(frames: Tensor) -> Tensor:
    """Pencil strokes (F, 1, H, W) in [0, 1], bright on black, of frames (F, 3, H, W) uint8: how much darker a pixel is
    than its surroundings (the "colour dodge" of image editors).

    The released weights were trained on lines of PiDiNet: these are like them and not the same, see ``drawn``.
    """
    import cv2

    strokes = []
    for picture in frames.permute(0, 2, 3, 1).numpy():
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
        around = cv2.GaussianBlur(grey, (0, 0), max(1.0, SURROUNDINGS * min(grey.shape)))
        strokes.append(1 - (grey + DIM) / (np.maximum(around, grey) + DIM))
    return torch.from_numpy(np.stack(strokes)[:, None])


def drawn(frames: Tensor, network: str, device: torch.device | str = "cpu") -> Tensor:
    """Lines (F, 1, H, W) in [0, 1], bright on black, of frames (F, 3, H, W) uint8, by a network of the user's.

    Args:
        network: A TorchScript file, such as PiDiNet saved by ``torch.jit``: from pictures (N, 3, H, W), of which
            ImageNet's mean and spread were taken, to lines (N, 1, H, W), of several maps of lines the last.

    Raises BadRequest where it is no such network.
    """
    key = f"tf_t2v.sketch_network={network}"
    try:
        model = torch.jit.load(str(Path(network).expanduser()), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise BadRequest(f"{key} is no TorchScript file. Save the network by torch.jit, or leave it out.") from error
    mean, spread = (torch.tensor(values, device=device)[:, None, None] for values in IMAGENET)
    lines = []
    for frame in frames:
        try:
            with torch.no_grad():
                found = model((frame[None].to(device).float() / 255 - mean) / spread)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][:120]
            raise BadRequest(f"{key} does not take pictures (1, 3, height, width): {reason}.") from error
        found = found[-1] if isinstance(found, list | tuple) else found
        if found.shape != (1, 1, *frame.shape[1:]):
            raise BadRequest(f"{key} makes {tuple(found.shape)} of a picture. It must make (1, 1, height, width).")
        lines.append(found[0].float().clamp(0, 1).cpu())
    return torch.stack(lines)


def single_sketch(frames: Tensor) -> Tensor:
    """The first frame's sketch (F, 1, H, W), for every frame."""
    return sketch(frames[:1]).expand(len(frames), -1, -1, -1)


def local_image(frames: Tensor) -> Tensor:
    """The first frame (F, 3, H, W) in [0, 1], for every frame."""
    return (frames[:1].float() / 255).expand(len(frames), -1, -1, -1)


def depth(frames: Tensor, estimator: str | None = None, device: torch.device | str = "cpu") -> Tensor:
    """Inverse depth (F, 1, h', w'), near is large, of frames (F, 3, H, W) uint8, on the released weights' scale.

    Raises BadRequest where there is no such estimator.
    """
    found = estimate(frames, estimator or ESTIMATOR, device)
    return (found[:, None] / DEPTH_SCALE).clamp(0, DEEPEST)


def motion(path: str, key: str, num_frames: int) -> Tensor:
    """(2, F, H, W): by how many pixels, right and down, the codec moved every block since the frame before.

    What the codec painted anew, such as all of the first frame, has moved by nothing. Raises BadRequest for a file that
    cannot be read, has fewer frames, is turned, or tells nothing of motion, as FFmpeg reads it: HEVC, VP9 and AV1.
    """
    import av

    maps: list[np.ndarray] = []
    told, codec = False, ""
    try:
        with av.open(str(Path(path).expanduser())) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise BadRequest(f"{key} holds no video. Give a clip.")
            stream.codec_context.options = {"flags2": "+export_mvs"}
            codec = stream.codec_context.codec.canonical_name
            for frame in container.decode(stream):
                if any(orientation(frame)):
                    raise BadRequest(f"{key} is a turned video. Write it upright first.")
                vectors = frame.side_data.get("MOTION_VECTORS")
                told = told or vectors is not None
                maps.append(_moved(frame, () if vectors is None else vectors.to_ndarray()))
                if len(maps) == num_frames:
                    break
    except (OSError, ValueError, av.FFmpegError) as error:
        raise BadRequest(f"{key} cannot be read as video ({error}).") from error
    if len(maps) < num_frames:
        raise BadRequest(f"{key} has {len(maps)} frames for {num_frames}. Ask for as many.")
    if not told and num_frames > 1:  # H.264 tells of what stands still as well
        raise BadRequest(
            f"{key}: as {codec} this video does not tell by how much its blocks move. Write it as H.264 first: ffmpeg "
            "-i <video> -c:v libx264 <new>.mp4"
        )
    return torch.from_numpy(np.stack(maps, axis=1))


def _moved(frame: Any, vectors: Any) -> np.ndarray:
    moved = np.zeros((2, frame.height, frame.width), np.float32)
    for vector in vectors:
        if vector["source"] < 0:  # of an earlier frame
            top, left = int(vector["dst_y"]) - vector["h"] // 2, int(vector["dst_x"]) - vector["w"] // 2
            block = slice(max(top, 0), top + int(vector["h"])), slice(max(left, 0), left + int(vector["w"]))
            moved[0][block] = int(vector["dst_x"]) - int(vector["src_x"])
            moved[1][block] = int(vector["dst_y"]) - int(vector["src_y"])
    return moved


OF_FRAMES: dict[str, Callable[[Tensor], Tensor]] = {
    "canny": canny,
    "sketch": sketch,
    "single_sketch": single_sketch,
    "local_image": local_image,
}
"""Condition -> what makes its maps of the frames (F, 3, H, W) uint8 of one clip, cheaply enough for a training."""

EXTRACTED = (*OF_FRAMES, "depth", "motion")
"""The conditions that can be made from a video."""


@dataclass(frozen=True)
class Extraction:
    """How maps are made: by which networks, and where they compute.

    Attributes:
        depth_estimator: A model that estimates inverse depth; None is the released weights'.
        sketch_network: As for ``drawn``; None draws without one.
    """

    depth_estimator: str | None = None
    sketch_network: str | None = None

    def maps(self, name: str, path: str, key: str, num_frames: int, device: torch.device | str = "cpu") -> Tensor:
        """A condition's maps (c, F, H, W), float32, made from a video, or from a picture for all frames.

        Args:
            key: What messages call the file.

        Raises BadRequest where the file cannot be read or has fewer frames.
        """
        if name == "motion":
            return motion(path, key, num_frames)
        frames = frames_of(path, key, num_frames)
        if name == "depth":
            made = depth(frames, self.depth_estimator, device)
        elif self.sketch_network is not None and name == "sketch":
            made = drawn(frames, self.sketch_network, device)
        elif self.sketch_network is not None and name == "single_sketch":
            made = drawn(frames[:1], self.sketch_network, device).expand(len(frames), -1, -1, -1)
        else:
            made = OF_FRAMES[name](frames)
        return made.transpose(0, 1)


def frames_of(path: str, key: str, num_frames: int) -> Tensor:
    """The first frames of a video, or a picture as many times, (F, 3, H, W) uint8.

    Raises BadRequest, as ``key``, where the file cannot be read or has fewer frames.
    """
    file = Path(path).expanduser()
    if file.suffix.lower() in IMAGES:
        pictures = np.repeat(read_picture(file, key), num_frames, axis=0)
    else:
        reader = VideoReader(file)
        if len(reader) < num_frames:
            raise BadRequest(f"{key} has {len(reader)} frames for {num_frames}. Ask for as many.")
        pictures = reader.frames(range(num_frames))
    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
