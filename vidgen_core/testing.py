"""For tests of methods, the bundled ones and yours: a whole run on the tiny model, from objects, without files."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vidgen_core.conformance import check_method as check_method
from vidgen_core.models import tiny
from vidgen_core.models.backbone import Backbone
from vidgen_core.moments import Moments
from vidgen_core.request import Request, VideoRequest, single_scene
from vidgen_core.run import CORE_HOOKS, Run, Window, frames, opened
from vidgen_core.sampling import denoiser

REQUEST = Request(
    (VideoRequest(("a dog runs",)),), num_frames=4, height=32, width=32, fps=8, seed=0, guidance_scale=3.0,
    num_inference_steps=2,
)  # fmt: skip
"""Four frames of 32 x 32 pixels in two steps: milliseconds on a CPU."""


def request(*prompts: str, negative: Sequence[str] = ("",), videos: int = 1, **changes: Any) -> Request:
    """A small request of these scenes; changed keys count as written by the user."""
    scenes = tuple(prompts) or REQUEST.videos[0].prompts
    made = tuple(VideoRequest(scenes, tuple(negative), index=i, name=f"video_{i}") for i in range(videos))
    return dataclasses.replace(REQUEST, videos=made, given=frozenset(changes), **changes)


def make_run(
    wanted: Request,
    methods: Mapping[str, object] | None = None,
    config: Mapping[str, Any] | None = None,
    trace: bool = False,
) -> Run:
    """A run of methods on a request; ``config`` may hold ``scheduler``, ``placement``, ``attention``, ``owner``,
    ``model``, ``tuned`` or ``weights``."""
    settings: dict[str, Any] = {"scheduler": {}, "placement": {}, "attention": "auto", "owner": {}}
    settings |= {"model": {}, "tuned": None, "weights": {}, **(config or {})}
    moments = Moments(methods or {}, settings["owner"], CORE_HOOKS, trace=trace)
    return Run(single_scene(moments.prepare_request(request=wanted)), settings, moments)


def video(
    wanted: Request,
    methods: Mapping[str, object] | None = None,
    config: Mapping[str, Any] | None = None,
    backbone: Backbone | None = None,
) -> Tensor:
    """The frames (B, F, 3, H, W), float in [0, 1], of a whole run on the tiny model."""
    run = make_run(wanted, methods, config)
    with opened(run, backbone or tiny.build()):
        return torch.cat([block.frames for block in frames(run)], dim=1)


def latents(
    wanted: Request,
    methods: Mapping[str, object] | None = None,
    config: Mapping[str, Any] | None = None,
    backbone: Backbone | None = None,
) -> list[Window]:
    """The sampled windows of a whole run on the tiny model, not decoded."""
    run = make_run(wanted, methods, config)
    with opened(run, backbone or tiny.build()):
        denoise = denoiser(run)
        return [window for group in run.groups for window in run.moments.sample(run=run, group=group, denoise=denoise)]


class LiveTensors(TorchDispatchMode):
    """Counts the memory of all tensors made inside the context, those within the networks too.

    Attributes:
        now: Bytes of those that are alive.
        most: The most that ``now`` has been; set it to ``now`` to begin again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:  # another view
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size
