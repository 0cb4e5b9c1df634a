"""Refinement by SR600: finished frames enlarged, inverted a part of the way to noise, and denoised by a second network.

As the release does it, but for the solver's noise, which is keyed by step and absolute frame as all noise is. Videos of
up to 16 frames go in with every frame doubled, since the network knows 32, and every second frame of what it makes is
kept.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from vidgen_streaming.blending import RandomizedBlending
from vidgen_streaming.enhancer import LEVELS, Enhancer
from vidgen_streaming.refine import Refinement

from vidgen_core import hookimpl
from vidgen_core.errors import BadRequest
from vidgen_core.models.backbone import Backbone
from vidgen_core.request import Request
from vidgen_core.run import FrameBlock, Run, Window
from vidgen_tf_t2v.ddim import inverted
from vidgen_tf_t2v.sr600 import fits

STRENGTH = 0.7
"""Share of the noise levels that frames are inverted through."""
KNOWN_FRAMES = 32


class Inverted(Enhancer):
    """Begins where an unguided inversion under the negative prompt leads, not at fresh noise."""

    @hookimpl
    def start_latents(self, run: Run, window: Window) -> Tensor:
        """(B, C, F, h, w), as noisy as at the solver's first step."""
        top = round(self.strength * LEVELS)
        last: Tensor = deque(inverted(run, window, self.clean(window.span), top, "uncond"), maxlen=1).pop()
        return last

    def scheduler(self, run: Run) -> Any:
        """A fresh solver at its first step, which takes latents as the inversion leaves them."""
        solver = super().scheduler(run)
        solver.init_noise_sigma = 1.0
        return solver


class SR600(Refinement):
    """Refines the frames of a run by SR600.

    Args:
        weights: Its checkpoint.
        parts: A diffusers folder or hub id whose VAE and text encoder are taken; None takes the run's model's.
        size: Height and width of the refined frames.

    The others are those of ``Refinement``.
    """

    owner = "tf_t2v"
    stage = "tf_t2v.refine"
    chosen = ("steps",)

    def __init__(
        self,
        weights: str,
        parts: str | None = None,
        size: Sequence[int] = (720, 1280),
        steps: int = 30,
        guidance_scale: float = 9.0,
        rescale: float = 0.3,
        chunk: int = KNOWN_FRAMES,
        overlap: int = 8,
    ) -> None:
        how: dict[str, Any] = {"guidance_scale": guidance_scale, "rescale": rescale, "resize": "bilinear"}
        super().__init__(size, chunk, overlap, STRENGTH, steps, **how)
        self.sdedit = Inverted(STRENGTH, rescale)
        self.blending = RandomizedBlending(chunk, overlap, scheduler=self.sdedit.scheduler)
        self.weights, self.parts = weights, parts
        self.doubles = False

    def opened(self, run: Run, backbone: Backbone) -> Any:
        """As ``Refinement.opened``, with the model that the weights and the run's model make up."""
        model: Mapping[str, Any] = run.config["model"]
        parts = self.parts or model.get("parts") or model.get("path")
        if parts is None:
            raise BadRequest(
                "tf_t2v.refine has no VAE and text encoder to go with: the model brings none of a folder. Name one: "
                "tf_t2v.refine_parts=ali-vilab/text-to-video-ms-1.7b."
            )
        self.model = {
            "_target_": "vidgen_tf_t2v.sr600.load",
            "path": self.weights,
            "parts": parts,
            "variant": model.get("variant"),
        }
        return super().opened(run, backbone)

    def request(self, run: Run) -> Request:
        """The same scenes on frames that are doubled where the network knows more than there are."""
        asked = super().request(run)
        self.doubles = 2 * asked.num_frames <= KNOWN_FRAMES
        if not self.doubles:
            return asked

        def twice(scene: Any) -> Any:
            return dataclasses.replace(scene, start=2 * scene.start, stop=2 * scene.stop)

        videos = tuple(dataclasses.replace(v, scenes=tuple(map(twice, v.scenes))) for v in asked.videos)
        return asked.replace(videos=videos, num_frames=2 * asked.num_frames)

    def refined(self, blocks: Iterator[FrameBlock]) -> Iterator[FrameBlock]:
        """The blocks of a stream, refined."""
        if self.run is None or not self.doubles:
            return super().refined(blocks)
        return halved(super().refined(twice_each(blocks)))

    def _check(self, run: Run, nested: Run, backbone: Backbone) -> None:
        super()._check(run, nested, backbone)
        height, width = nested.request.height, nested.request.width
        levels = len(backbone.denoiser.config.block_out_channels)
        if not fits(height, width, levels, backbone.scale_factor):
            raise BadRequest(
                f"tf_t2v.refine_size=[{height},{width}] does not go through SR600, which pads rows: with {levels} "
                "levels as published, heights are 16 more than a multiple of 64, such as 528, 592, 656 or 720, and "
                "widths a multiple of 64."
            )


def twice_each(blocks: Iterator[FrameBlock]) -> Iterator[FrameBlock]:
    """The stream with every frame two times."""
    for block in blocks:
        yield FrameBlock(range(2 * block.span.start, 2 * block.span.stop), block.frames.repeat_interleave(2, dim=1))


def halved(blocks: Iterator[FrameBlock]) -> Iterator[FrameBlock]:
    """The first of every two frames of the stream."""
    for block in blocks:
        first = block.span.start % 2
        frames = block.frames[:, first::2]
        if frames.shape[1]:
            start = (block.span.start + first) // 2
            yield FrameBlock(range(start, start + frames.shape[1]), frames)
