"""The kernels of attention: more rows than a CUDA grid holds are computed in several calls."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidgen_core import attention


def test_more_rows_than_a_grid_holds_are_several_calls_with_the_same_values_and_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    q, k, v = (torch.randn(7, 2, n, 4, requires_grad=True) for n in (3, 5, 5))

    def values_and_gradients() -> list[Tensor]:
        out = attention.BACKENDS["sdpa"](q, k, v)
        return [out, *torch.autograd.grad(out.square().sum(), (q, k, v))]

    whole = values_and_gradients()
    rows: list[int] = []
    kernel = attention.F.scaled_dot_product_attention
    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", lambda *of: rows.append(len(of[0])) or kernel(*of))
    monkeypatch.setattr(attention, "MOST_ROWS", 3)
    assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(values_and_gradients(), whole, strict=True))
    assert rows == [3, 3, 1]
