"""The denoiser as a CUDA graph: one launch a step instead of some 1,600, with the same kernels and the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vidgen_core.models.backbone import Backbone

WARM_UP = 3
"""Calls before the capture: kernels are chosen and workspaces allocated outside the graph."""


@dataclass
class _Captured:
    graph: torch.cuda.CUDAGraph
    latents: Tensor
    t: Tensor
    text: list[tuple[Tensor, Tensor]]  # the keys and values that the graph reads
    source: Tensor | None  # the first key that was copied in, to see whether the text changed
    placeholder: Tensor
    out: Tensor


KEPT = 4
"""Graphs kept at a time, of different shapes; the one used longest ago goes."""


class GraphedNetwork:
    """Calls the denoiser through one captured graph for every shape of its inputs."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.graphs: dict[tuple[Any, ...], _Captured] = {}
        # One pool for all: results are copied out at once, so no graph needs another's to stay.
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(
        self, latents: Tensor, t: Tensor, *, encoder_hidden_states: Tensor, return_dict: bool
    ) -> tuple[Tensor]:
        processors = self.backbone.text_processors
        text = [(p.key, p.value) for p in processors if p.key is not None and p.value is not None]
        key = (tuple(latents.shape), latents.dtype, t.dtype, tuple(tuple(k.shape) for k, _ in text))
        captured = self.graphs.pop(key, None) or self._capture(latents, t, text, encoder_hidden_states)
        self.graphs[key] = captured  # the last is the one used last
        if len(self.graphs) > KEPT:
            del self.graphs[next(iter(self.graphs))]
        captured.latents.copy_(latents)
        captured.t.copy_(t)
        if text and text[0][0] is not captured.source:
            own = [tensor for pair in captured.text for tensor in pair]
            torch._foreach_copy_(own, [tensor for pair in text for tensor in pair])
            captured.source = text[0][0]
        captured.graph.replay()
        # The next replay writes to the same place, and guidance in two passes needs both results.
        return (captured.out.clone(),)

    def _capture(self, latents: Tensor, t: Tensor, text: list[tuple[Tensor, Tensor]], placeholder: Tensor) -> _Captured:
        own_latents, own_t = latents.clone(), t.to(latents.device).clone()
        own_text = [(k.clone(), v.clone()) for k, v in text]
        placeholder = placeholder.clone()  # the window's own goes with the window
        processors = self.backbone.text_processors

        def call() -> Tensor:
            out: Tensor = self.backbone.denoiser(
                own_latents, own_t, encoder_hidden_states=placeholder, return_dict=False
            )[0]
            return out

        for processor, (k, v) in zip(processors, own_text, strict=True):
            processor.set_text(k, v)
        try:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(WARM_UP):
                    call()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool):
                out = call()
        finally:
            for processor, (k, v) in zip(processors, text, strict=True):
                processor.set_text(k, v)
        return _Captured(graph, own_latents, own_t, own_text, text[0][0] if text else None, placeholder, out)


@contextmanager
def captured(backbone: Backbone) -> Iterator[None]:
    """Predict through CUDA graphs inside the context; their memory is freed when it ends."""
    backbone.graphed = GraphedNetwork(backbone)
    try:
        yield
    finally:
        backbone.graphed = None
