"""Adapter of the MAWE case: the case's frames and flows through the metric itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidgen_core.metrics.flow import motion
from vidgen_core.metrics.mawe import mean_of_ratios, warp, warp_error

Case = dict[str, Any]


def mawe(case: Case, folder: Path) -> dict[str, Tensor]:
    """Every pair's warped frame, holes, error and motion, and the mean of their ratios."""
    tensors, scalars = case["tensors"], case["scalars"]
    pixels = (scalars["frame_mean"] + scalars["frame_std"] * tensors["frames"]).round().clamp(0, 255)
    frames = pixels.byte().permute(0, 2, 3, 1).numpy()
    shift = torch.tensor(scalars["flow_mean"])[None, :, None, None]
    flows = (scalars["flow_std"] * tensors["flows"] + shift).numpy()
    moved, known = zip(*map(warp, frames, flows), strict=False)
    errors, motions = list(map(warp_error, frames, frames[1:], flows)), motion(flows)
    found = {
        "warped": np.stack(moved).transpose(0, 3, 1, 2),
        "hole_mask": ~np.stack(known),
        "warp_error": np.array(errors),
        "motion": motions,
        "mawe": np.array([mean_of_ratios(errors, motions.tolist(), scalars["coeff"])]),
    }
    return {name: torch.from_numpy(values).float() for name, values in found.items()}


ADAPTERS = {"mawe": mawe}
