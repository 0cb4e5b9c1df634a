"""Depth-conditioned one-shot tuning (arXiv 2408.16704): Tune-A-Video on a model that reads the clip's depth.

The depth is a latent channel after the noisy ones at every call: tuning, inversion and sampling. It is never noised,
and both guidance branches see the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

from torch import Tensor
from vidgen_tune_a_video.method import TRAINED, TuneAVideo

from vidgen_core import hookimpl
from vidgen_core.conditioning import Condition
from vidgen_core.data.one_clip import OneClip
from vidgen_core.data.sample import Batch
from vidgen_core.errors import BadRequest
from vidgen_core.request import Request
from vidgen_core.run import Run, Window
from vidgen_depth.clip_depth import ClipDepth
from vidgen_depth.edits import edited, read_edits
from vidgen_depth.temporal_consistency import check_choices, temporal_consistency


class Depth(TuneAVideo):
    """The inflation, tuning and inversion of Tune-A-Video, on latents and depth.

    Args:
        spread: ``even`` takes frames evenly over the clip, ``stride`` every ``stride``-th.
        maps, inverted, estimator, normalise: Where the depth comes from, see ``ClipDepth``.
        edit: Edits of the depth that a video is made with, see ``read_edits``; the inversion sees the clip's own.
        temporal_weight: Of the temporal consistency loss (equation 8); 0 is Tune-A-Video's loss, bit for bit.
        temporal_weighting, temporal_source, temporal_norm, temporal_target: See ``temporal_consistency``.
    """

    name = "depth"
    reads_clip = True
    """For its depth, wherever a video starts."""

    def __init__(
        self,
        spread: str = "even",
        start: int = 0,
        stride: int = 1,
        fit: str = "stretch",
        maps: str | None = None,
        inverted: bool = False,
        estimator: str | None = None,
        normalise: str = "per_frame",
        edit: Any = None,
        invert: str = "empty",
        caption: str | None = None,
        inversion_steps: int | None = None,
        strength: float = 1.0,
        trainable_modules: Sequence[str] = TRAINED,
        temporal_weight: float = 0.1,
        temporal_weighting: str = "alpha_bar",
        temporal_source: str = "x0",
        temporal_norm: str = "l2",
        temporal_target: str = "zero",
    ) -> None:
        super().__init__(
            start, stride, fit, invert, caption, inversion_steps, strength, trainable_modules=trainable_modules
        )
        self.spread = spread
        self.depth = ClipDepth(maps, inverted, estimator, normalise)
        self.edit = edit
        self._edits = lru_cache(maxsize=1)(partial(read_edits, edit))
        self.temporal_weight = temporal_weight
        self.consistency = {"weighting": temporal_weighting, "source": temporal_source}
        self.consistency |= {"norm": temporal_norm, "target": temporal_target}
        check_choices(**self.consistency)

    def check_request(self, request: Request) -> None:
        """Raise BadRequest for a request without a clip."""
        super().check_request(request)
        if request.video is None:
            raise BadRequest("method=depth needs the clip whose depth it keeps: video=clip.mp4, or tuned=folder.")

    @hookimpl
    def prepare_request(self, request: Request) -> Request | None:
        """Look at the clip, its maps and what is to be edited in them before anything heavy."""
        prepared = super().prepare_request(request)
        if prepared is not None:
            self.depth.supplied(self.clip(request))
            self._edits(self.clip(request))
        return prepared

    @hookimpl
    def data(self, run: Run) -> OneClip:
        """The one clip, whose maps are looked at, too."""
        clip = super().data(run)
        self.depth.supplied(clip)
        return clip

    def check_channels(self, extra: int | None) -> None:
        """Raise BadRequest for a model that reads no depth."""
        if extra not in (1, None):
            raise BadRequest(
                "method=depth needs an image model that reads one channel of depth beside its latents, as "
                f"stable-diffusion-2-depth does; this one reads {extra or 'none'}. Choose one"
                f"{', or use method=tune_a_video' if not extra else ''}."
            )

    def clean_depth(self, run: Run, window: Window) -> Tensor:
        """(1, 1, F, h, w): the depth of the clip's frames in the window."""
        whole = self.depth.channel(run, self.clip(run.request))
        if window.span.stop > whole.shape[2]:
            raise BadRequest(f"The clip has {whole.shape[2]} frames; {window.span.stop} are to be made of it.")
        return whole[:, :, window.span.start : window.span.stop]

    @hookimpl(claims="channels")
    def condition(self, run: Run, window: Window) -> dict[str, Any]:
        """``channels``: the clip's depth, edited where a video is made."""
        depth = self.clean_depth(run, window)
        if run.batch is None and self.edit is not None:
            clip = self.clip(run.request)
            whole = self.depth.channel(run, clip)[0, 0]
            edits = [edit.settled(partial(self.depth.of_another, run)) for edit in self._edits(clip)]
            changed = edited(whole, edits, self.depth.normalise)
            depth = changed[window.span.start : window.span.stop][None, None]
        return {"channels": depth.expand(len(run.request.videos), -1, -1, -1, -1)}

    def source_condition(self, run: Run, window: Window) -> Condition:
        """The clip's own depth: what is edited is made from the noise of what was."""
        depth = self.clean_depth(run, window).expand(len(run.request.videos), -1, -1, -1, -1)
        return Condition({**window.condition, "channels": depth})

    @hookimpl
    def losses(self, run: Run, batch: Batch, prediction: Any) -> dict[str, Tensor]:
        """``temporal_consistency``, weighted; nothing at all where its weight is 0."""
        if not self.temporal_weight:
            return {}
        scheduler = prediction.scheduler
        abar = scheduler.alphas_cumprod.to(prediction.timesteps.device)[prediction.timesteps]
        loss = temporal_consistency(
            prediction.noisy,
            prediction.output,
            abar,
            scheduler.config.prediction_type,
            clean=prediction.latents,
            **self.consistency,
        )
        return {"temporal_consistency": self.temporal_weight * loss}
