"""Attention over two sources of keys, each read where it lies, merged by the logarithms of their normalisers.

With o_1, o_2 the two outputs and l_1, l_2 the logarithms of the sums of exponentials,

    l = log(exp l_1 + exp l_2),    o = exp(l_1 - l) o_1 + exp(l_2 - l) o_2

is softmax attention over all keys together. Its gradient is the kernel's own for each source, given the *merged* o and
l: the probabilities that the kernel recomputes are then those over all keys. Exact, as in ring attention.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

aten = torch.ops.aten


def merges(q: Tensor) -> bool:
    """Whether the kernel of this device, dtype and head width gives normalisers, and merging them the right result."""
    return _works(q.device.type, q.dtype, q.shape[-1])


def two_sources(q: Tensor, k1: Tensor, v1: Tensor, k2: Tensor, v2: Tensor) -> Tensor:
    """Attention of q (B, F, h, N, d) over k1, v1 (B, h, L, d), shared by all frames, and k2, v2 (B, F, h, L, d)."""
    out: Tensor = _TwoSources.apply(q, k1, v1, k2, v2)
    return out


class _TwoSources(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k1: Tensor, v1: Tensor, k2: Tensor, v2: Tensor) -> Tensor:
        kernel = _KERNELS[q.device.type]
        frames = q.shape[1]
        shared, single = _shared(q), q.flatten(0, 1)
        o1, l1 = kernel.forward(shared, k1, v1)  # B h F*N d, B h F*N
        o2, l2 = kernel.forward(single, k2.flatten(0, 1), v2.flatten(0, 1))  # B*F h N d, B*F h N
        o1, l1 = _unshared(o1, frames), _unshared(l1, frames)  # B*F h N ...
        merged = torch.logaddexp(l1, l2)
        out = o1 * (l1 - merged).exp()[..., None].to(o1.dtype)
        out = out.addcmul_(o2, (l2 - merged).exp()[..., None].to(o2.dtype))
        ctx.save_for_backward(q, k1, v1, k2, v2, out, merged)
        return out.view_as(q)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> tuple[Tensor, ...]:
        q, k1, v1, k2, v2, out, merged = ctx.saved_tensors
        kernel = _KERNELS[q.device.type]
        frames = q.shape[1]
        grad = grad.flatten(0, 1).to(out.dtype)
        of_q1, of_k1, of_v1 = kernel.backward(
            _shared(grad.view_as(q)), _shared(q), k1, v1, _shared(out.view_as(q)), _shared(merged.view(q.shape[:-1]))
        )
        of_q2, of_k2, of_v2 = kernel.backward(grad, q.flatten(0, 1), k2.flatten(0, 1), v2.flatten(0, 1), out, merged)
        of_q = _unshared(of_q1, frames) + of_q2
        return of_q.view_as(q), of_k1, of_v1, of_k2.view_as(k2), of_v2.view_as(v2)


def _shared(x: Tensor) -> Tensor:
    """(B, F, h, N, ...) -> (B, h, F*N, ...): all frames are queries of one source."""
    return x.transpose(1, 2).flatten(2, 3)


def _unshared(x: Tensor, frames: int) -> Tensor:
    """(B, h, F*N, ...) -> (B*F, h, N, ...)."""
    return x.unflatten(2, (frames, -1)).transpose(1, 2).flatten(0, 1)


class _Cpu:
    """torch's flash attention for the CPU."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor) -> Any:
        return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)[:2]

    @staticmethod
    def backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, normaliser: Tensor) -> Any:
        return aten._scaled_dot_product_flash_attention_for_cpu_backward(grad, q, k, v, out, normaliser, 0.0, False)


class _Cuda:
    """torch's memory-efficient attention, which takes every dtype and width."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor) -> Any:
        out, normaliser, *_ = aten._scaled_dot_product_efficient_attention(q, k, v, None, True)
        return out, normaliser[..., : q.shape[2]]  # it is padded to the kernel's blocks

    @staticmethod
    def backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, normaliser: Tensor) -> Any:
        padded = torch.nn.functional.pad(normaliser, (0, -normaliser.shape[-1] % 32), value=torch.inf)
        nothing = torch.zeros((), dtype=torch.int64, device=q.device)
        parts = aten._scaled_dot_product_efficient_attention_backward(
            grad, q, k, v, None, out, padded, nothing, nothing, 0.0, [True, True, True, False], False
        )
        return parts[:3]


_KERNELS: dict[str, Any] = {"cpu": _Cpu, "cuda": _Cuda}


@cache
def _works(device: str, dtype: torch.dtype, width: int) -> bool:
    # Private kernels, which change with torch: used where a small case comes out right, values and gradients.
    if device not in _KERNELS:
        return False
    # What the trial saves is no business of a block that is being checkpointed, and will not be saved again.
    apart = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False), apart:
            g = torch.Generator().manual_seed(0)
            shapes = [(1, 3, 2, 9, width), (1, 2, 9, width), (1, 2, 9, width), (1, 3, 2, 9, width), (1, 3, 2, 9, width)]
            given = [torch.randn(s, generator=g).to(device, dtype).requires_grad_() for s in shapes]
            q, k1, v1, k2, v2 = given
            k, v = (torch.cat([a[:, None].expand_as(b), b], dim=3).flatten(0, 1) for a, b in ((k1, k2), (v1, v2)))
            wanted = scaled_dot_product_attention(q.flatten(0, 1), k, v).view_as(q)
            found = two_sources(q, k1, v1, k2, v2)
            weights = torch.randn(q.shape, generator=g).to(q)
            pairs = [(found, wanted)]
            pairs += zip(
                torch.autograd.grad((found * weights).sum(), given),
                torch.autograd.grad((wanted * weights).sum(), given),
                strict=True,
            )
            # Four roundings of the dtype: what a right result may differ by.
            limit = max(4 * torch.finfo(dtype).eps, 1e-5)
            return all(bool(((a - b).abs().max() <= limit * b.abs().max().clamp(min=1)).item()) for a, b in pairs)
    except Exception:  # a kernel that is not there, or has another signature in this torch
        return False
