"""The temporal coherence loss (arXiv 2312.15770, section 3.3): errors must not change from frame to frame.

What flickers or shifts in colour is punished; an error that a cell keeps in all frames is free.
B videos, C channels, F frames, h w latent cells.
"""

from __future__ import annotations

from torch import Tensor

from vidgen_core.errors import BadRequest, nearest

REDUCTIONS = ("mean", "frame_sum")


def check_reduction(reduction: str) -> None:
    """Raise BadRequest for a reduction that ``temporal_coherence`` does not have."""
    if reduction not in REDUCTIONS:
        raise BadRequest(f"The temporal coherence loss knows no reduction={reduction}.{nearest(reduction, REDUCTIONS)}")


def temporal_coherence(prediction: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """(B,): the square of (v[j+1] - v[j]) - (o[j+1] - o[j]) for predictions o and targets v, 0 where F = 1.

    Args:
        prediction, target: (B, C, F, h, w), in the space in which the network predicts; computed in float32.
        reduction: ``mean`` over all elements of the F - 1 pairs, on the scale of the denoising loss, or ``frame_sum``:
            the mean of every pair, summed over the pairs, as the paper's formula is written.

    Raises:
        BadRequest: an unknown reduction.
    """
    check_reduction(reduction)
    # The difference of differences is that of the residual: one subtraction for three.
    change = (target.float() - prediction.float()).diff(dim=2).square()
    if change.shape[2] == 0:
        return change.new_zeros(len(change))
    pairs = change.mean(dim=(1, 3, 4))
    return pairs.sum(1) if reduction == "frame_sum" else pairs.mean(1)
