"""Optical flow by RAFT-large (Teed and Deng 2020) of torchvision, as published long-video evaluations take it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from vidgen_core.errors import BadRequest

if TYPE_CHECKING:
    from torch import Tensor

STEP, SMALLEST = 8, 128
"""Sides are multiples of the one and not below the other; frames are padded with their own edge."""


def load(weights: str | None = None, device: str = "auto") -> RaftFlow:
    """The estimator that ``flow=raft`` names, with weights from a file or, where there is none, torchvision's own.

    Raises:
        BadRequest: torchvision is missing or fits another torch, or the weights cannot be had or are of another model.
    """
    from vidgen_core.placement import device_and_dtype

    where, _ = device_and_dtype({"device": device})
    try:
        from torchvision.models.optical_flow import Raft_Large_Weights, raft_large
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch
        reason = " ".join(str(error).split())[:160]
        raise BadRequest(
            f"flow=raft needs the torchvision that belongs to torch {torch.__version__} ({reason}). Install it, or "
            "choose flow=opencv."
        ) from error
    if weights:
        model = raft_large(weights=None)
        _fill(model, weights)
    else:
        try:
            model = raft_large(weights=Raft_Large_Weights.DEFAULT, progress=False)
        except (OSError, RuntimeError) as error:  # no network; a file that arrived damaged
            raise BadRequest(
                f"torchvision could not fetch the weights of RAFT ({' '.join(str(error).split())[:160]}). Give "
                "flow.weights=<file of raft_large>, or choose flow=opencv."
            ) from error
    return RaftFlow(model.to(where).eval())


def _fill(model: torch.nn.Module, path: str) -> None:
    from vidgen_core.models.loading import check_names, located
    from vidgen_core.models.tuned import read_tensors

    file = located(path)
    if not file.is_file():
        raise BadRequest(f"flow.weights={file}: there is no such file.")
    tensors, _ = read_tensors(file)
    own = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    check_names(own, {name: list(tensor.shape) for name, tensor in tensors.items()}, str(file))
    model.load_state_dict(tensors)


class RaftFlow:
    """A loaded RAFT; one pair at a time, since its memory grows with the square of the pixels."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._device = next(model.parameters()).device

    @torch.inference_mode()
    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(P, 2, H, W) of P + 1 frames (P + 1, H, W, 3); the last of RAFT's iterates."""
        height, width = frames.shape[1:3]
        below, right = _missing(height), _missing(width)
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(self._device).permute(0, 3, 1, 2)
        pixels = pad(pixels.float() / 127.5 - 1, (0, right, 0, below), mode="replicate")
        flows: list[Tensor] = [self._model(one[None], other[None])[-1] for one, other in pairwise(pixels)]
        found: NDArray[np.float32] = torch.cat(flows)[..., :height, :width].float().cpu().numpy()
        return found


def _missing(side: int) -> int:
    return max(-(-side // STEP) * STEP, SMALLEST) - side
