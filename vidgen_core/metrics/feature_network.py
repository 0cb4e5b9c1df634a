"""The networks by which sets of videos are compared: the CLIP of the evaluation, or whatever the user brings.

F frames, D features, K classes. Frames are (F, H, W, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vidgen_core.errors import BadRequest, nearest
from vidgen_core.metrics.clip import AT_ONCE, Clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

VALUES = {"-1..1": (2.0, -1.0), "0..1": (1.0, 0.0), "0..255": (255.0, 0.0)}
"""``values`` -> factor and shift of pixels in 0..1."""


class Network(Protocol):
    """Looks at frames or at whole videos, and says features or logits of classes."""

    def frames(self, frames: NDArray[np.uint8], classes: bool = False) -> Tensor:
        """(F, D) or, of classes, (F, K)."""
        ...

    def video(self, frames: NDArray[np.uint8], classes: bool = False) -> Tensor:
        """(D,) or (K,)."""
        ...


def load(path: str | None, clip: Clip, size: int, values: str, key: str) -> Network:
    """The network of a metric.

    Args:
        path: A TorchScript file, a folder (``pkg://`` too) or hub id of a classifier or encoder of transformers; None
            takes the CLIP model.
        size: Side of the square that frames become for a TorchScript network; 0 leaves them. One whose ``forward`` has
            an argument ``resize`` is asked to do that by itself.
        values: One of ``VALUES``: what such a network takes pixels as.
        key: The metric's, ``metrics.fvd``, for messages.

    Raises:
        BadRequest: there is no such file or folder, or it is no network.
    """
    from vidgen_core.models.loading import found, located

    if values not in VALUES:
        raise BadRequest(f"{key}.values={values} is not a choice.{nearest(values, VALUES)}")
    if path is None:
        return ClipNetwork(clip)
    file = located(path)
    if file.is_file():
        return Scripted(file, size, values, clip.device, key)
    source = found(path)
    if source is None:
        raise BadRequest(
            f"{key}.network={path}: there is no such file or folder. Give a TorchScript file, such as an I3D or "
            "Inception network saved by torch.jit, or a folder or hub id of transformers."
        )
    return Pretrained(str(source), clip.device, key)


def over_time(patches: Tensor) -> Tensor:
    """What the patches of a video's frames (F, P, D) tell of it, (3 D,): looks, drift and change.

    Looks are the mean over frames and patches. How a patch drifts from the first frame to the last is its first cosine
    over time, and how it changes the difference of neighbouring frames; of both, the mean size over patches. So what
    moves, and how steadily, counts, and not where or whither. A single frame drifts and changes by 0.
    """
    count = len(patches)
    if count == 1:
        return torch.cat([patches.mean(dim=(0, 1)), patches.new_zeros(2 * patches.shape[-1])])
    wave = torch.cos(torch.pi * (torch.arange(count, dtype=patches.dtype) + 0.5) / count)
    drift = 2**0.5 / count * torch.einsum("f,fpd->pd", wave, patches)
    change = patches.diff(dim=0)
    return torch.cat([patches.mean(dim=(0, 1)), drift.abs().mean(dim=0), change.abs().mean(dim=(0, 1))])


class ClipNetwork:
    """The CLIP model of the evaluation: its picture encoder, which sees a video frame by frame.

    Its classes are captions: what is asked is which of them a frame fits.
    """

    def __init__(self, clip: Clip) -> None:
        self._clip = clip

    def frames(self, frames: NDArray[np.uint8], classes: bool = False) -> Tensor:
        """(F, D), the pooled features before the projection; classes are had of these and of captions."""
        return torch.cat([self._clip.pooled(some) for some in _some(frames)])

    def video(self, frames: NDArray[np.uint8], classes: bool = False) -> Tensor:
        """``over_time`` of the frames' patches; of classes, the mean features of the frames."""
        if classes:
            return self.frames(frames).mean(dim=0)
        return over_time(torch.cat([self._clip.patches(some) for some in _some(frames)]))

    def logits(self, features: Tensor, captions: Sequence[str]) -> Tensor:
        """(F, K) of pooled features (F, D) for K captions."""
        return self._clip.scale * self._clip.projected(features) @ self._clip.texts(captions).T


class Scripted:
    """A network in TorchScript: pictures (N, 3, H, W) or videos (N, 3, F, H, W) in, features or logits (N, ..) out."""

    def __init__(self, file: Path, size: int, values: str, device: torch.device, key: str) -> None:
        try:
            self._network = torch.jit.load(str(file), map_location=device).eval()
        except RuntimeError as error:
            raise BadRequest(f"{key}.network={file} is no TorchScript file. Save a network by torch.jit.") from error
        self._name, self._size, self._device, self._key = str(file), size, device, key
        self._factor, self._shift = VALUES[values]
        self._takes = {argument.name for argument in self._network.forward.schema.arguments}

    def frames(self, frames: NDArray[np.uint8], classes: bool = False) -> Tensor:
        """Of the network for single pictures."""
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
        return torch.cat([self._ask(self._prepared(some), classes) for some in pixels.split(AT_ONCE)])

    def video(self, frames: NDArray[np.uint8], classes: bool = False) -> Tensor:
        """Of the network for videos."""
        pixels = self._prepared(torch.from_numpy(frames).permute(0, 3, 1, 2))
        return self._ask(pixels.transpose(0, 1)[None], classes)[0]

    def _prepared(self, pixels: Tensor) -> Tensor:
        pixels = pixels.float()
        if {"resize", "return_features"} & self._takes:  # these prepare pictures in 0..255 by themselves
            return pixels
        if self._size:
            size = (self._size, self._size)
            pixels = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        return pixels / 255 * self._factor + self._shift

    @torch.inference_mode()
    def _ask(self, pixels: Tensor, classes: bool) -> Tensor:
        asked = {"rescale": True, "resize": True, "return_features": not classes}
        try:
            out = self._network(pixels.to(self._device), **{k: v for k, v in asked.items() if k in self._takes})
        except RuntimeError as error:  # of the script itself, for whatever it does not take
            reason = str(error).strip().splitlines()[-1][:200]
            raise BadRequest(
                f"{self._key}.network={self._name} does not take pictures {tuple(pixels.shape)} ({reason}). Is it the "
                f"right kind of network, and {self._key}.size its size?"
            ) from error
        return _flat(out, self._key, self._name)


class Pretrained:
    """A model of transformers for pictures or for videos, with its own processor."""

    def __init__(self, source: str, device: torch.device, key: str) -> None:
        import transformers

        from vidgen_core.models.loading import quiet

        try:
            with quiet():
                config = transformers.AutoConfig.from_pretrained(source)
                kinds = " ".join(config.architectures or [])
                self._classifies = "Classification" in kinds
                self._of_videos = "Video" in type(config).__name__ or hasattr(config, "num_frames")
                auto = "AutoModel"
                if self._classifies:
                    auto = f"AutoModelFor{'Video' if self._of_videos else 'Image'}Classification"
                self._model = getattr(transformers, auto).from_pretrained(source).to(device).float().eval()
                self._processor = transformers.AutoImageProcessor.from_pretrained(source)
        except Exception as error:  # OSError, ValueError, KeyError, ImportError: transformers raises many kinds
            reason = " ".join(str(error).split())[:300]
            raise BadRequest(f"{key}.network={source} cannot be read ({type(error).__name__}: {reason}).") from error
        self._name, self._key = source, key

    def frames(self, frames: NDArray[np.uint8], classes: bool = False) -> Tensor:
        """Of a model for pictures."""
        if self._of_videos:
            raise BadRequest(f"{self._key}.network={self._name} looks at videos, and frames are asked for.")
        return torch.cat([self._pooled(out, classes) for out in map(self._ask, _some(frames))])

    def video(self, frames: NDArray[np.uint8], classes: bool = False) -> Tensor:
        """Of a model for videos; ``over_time`` of the patches, or the mean logits, of one for pictures."""
        if self._of_videos:
            return self._pooled(self._ask(frames), classes)[0]
        if classes:
            return self.frames(frames, classes=True).mean(dim=0)
        return over_time(torch.cat([_patches(self._ask(some)).float().cpu() for some in _some(frames)]))

    @torch.inference_mode()
    def _ask(self, frames: NDArray[np.uint8]) -> Any:
        asked = [list(frames)] if self._of_videos else list(frames)
        pixels = self._processor(asked, return_tensors="pt")["pixel_values"].to(self._model.device)
        return self._model(pixel_values=pixels, output_hidden_states=True)

    def _pooled(self, out: Any, classes: bool) -> Tensor:
        if classes and not self._classifies:
            raise BadRequest(f"{self._key}.network={self._name} is no classifier. Give one, or leave it out.")
        pooled = out.logits if classes else getattr(out, "pooler_output", None)
        return _flat(_patches(out).mean(dim=1) if pooled is None else pooled, self._key, self._name)


def _some(frames: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [frames[start : start + AT_ONCE] for start in range(0, len(frames), AT_ONCE)]


def _patches(out: Any) -> Tensor:
    """The last layer's tokens (N, P, D), or the places of its map (N, D, H, W) as such."""
    last = getattr(out, "last_hidden_state", None)
    last = out.hidden_states[-1] if last is None else last
    patches: Tensor = last.flatten(2).transpose(1, 2) if last.ndim == 4 else last
    return patches


def _flat(out: Any, key: str, name: str) -> Tensor:
    if not isinstance(out, Tensor):
        raise BadRequest(f"{key}.network={name} gives {type(out).__name__}, where one tensor was expected.")
    return out.flatten(1).float().cpu()
