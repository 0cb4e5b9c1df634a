"""Tune-A-Video (arXiv 2212.11565): tune an image model on one captioned clip, then edit the clip by another prompt.

What trains is what asks, and what is new: the query projections of both attentions, and the temporal attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.conditioning import Condition
from vidgen_core.data.one_clip import OneClip
from vidgen_core.errors import BadRequest
from vidgen_core.models import unet2d
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_core.placement import device_and_dtype
from vidgen_core.request import Request
from vidgen_core.run import Run, Window, build_model
from vidgen_tune_a_video.inflated import st_attention
from vidgen_tune_a_video.inflation import Inflation
from vidgen_tune_a_video.inflations import INFLATIONS
from vidgen_tune_a_video.inverted import Inverted
from vidgen_tune_a_video.published import carried, extra_channels, from_published, is_temporal, read_inflated

TRAINED = ("attn1.to_q", "attn2.to_q", "attn_temp")
"""The modules that train (section 3.3 of the paper); the temporal norm stays as it is."""


def build(inflation: str = "st_attention", **options: Any) -> Inflation:
    """The object of the chosen inflation, with those of the options that are its own."""
    kinds: dict[str, type[Inflation]] = {TuneAVideo.inflation: TuneAVideo, **INFLATIONS}
    own = signature(kinds[inflation]).parameters
    made = kinds[inflation](**{key: value for key, value in options.items() if key in own})
    made.foreign = frozenset(options.keys() - own.keys())
    return made


class TuneAVideo(Inflation):
    """ST-attention inflation, one-shot tuning, and edits that start from the clip's inverted noise.

    Args:
        start: The clip's first frame.
        stride: Frames of the video from one frame of the clip to the next.
        fit: ``stretch`` to height and width, or ``resize_center``, which keeps the aspect.
        invert: ``empty`` inverts without text, as published; ``prompt`` with the clip's caption; ``none`` not at all.
        caption: The clip's own caption, where prompts are edits to look at; None takes the prompt of the tuning.
        inversion_steps: None takes as many as the sampling has.
        strength: Share of the way to noise from which an edit starts; 1 as published.
        temporal: False has every frame inverted and edited by itself, by the image model as it is.
        trainable_modules: What trains of every transformer block, by the names that its modules have there.
    """

    inflation = "st_attention"

    def __init__(
        self,
        start: int = 0,
        stride: int = 1,
        fit: str = "stretch",
        invert: str = "empty",
        caption: str | None = None,
        inversion_steps: int | None = None,
        strength: float = 1.0,
        temporal: bool = True,
        trainable_modules: Sequence[str] = TRAINED,
    ) -> None:
        if caption is not None and not caption.strip():
            raise BadRequest(f"{self.name}.caption is empty. Say what the clip shows, or leave it out.")
        self.start, self.stride, self.fit = start, stride, fit
        self.inverted = Inverted(invert, caption, inversion_steps, strength, self.name)
        self.temporal = temporal
        self.trainable_modules = tuple(trainable_modules)
        self._opened = lru_cache(maxsize=1)(OneClip)  # read once, however many windows ask for it

    # ---------------------------------------------------------------------------------------- request, data

    @hookimpl
    def prepare_request(self, request: Request) -> Request | None:
        """Look at a clip that is read before anything heavy: there and long enough. Its scenes share its frames."""
        self.check_request(request)
        if request.video is None or not request.videos or request.videos[0].spans:
            return None
        if self.reads_clip:
            self.clip(request).check()
        return request.replace(given=request.given | {"num_frames"})

    @property
    def reads_clip(self) -> bool:
        """Whether a video is made from the clip's own frames; afresh, it may have any number of them."""
        return self.inverted.wanted

    def clip(self, request: Request) -> OneClip:
        """The clip of ``video=``, as many frames as are asked for, under its caption or the first prompts."""
        assert request.video is not None
        prompts = request.videos[0].prompts if request.videos else ("",)
        captions = prompts if self.inverted.caption is None else (self.inverted.caption,)
        size = (request.height, request.width)
        choice = (self.start, self.stride, self.spread, self.fit)
        return self._opened(request.video, captions, request.num_frames, size, *choice, keys=f"{self.name}.")

    spread = "stride"
    """How the clip's frames are chosen: every ``stride``-th."""

    @hookimpl
    def data(self, run: Run) -> OneClip:
        """The one clip, again and again."""
        if run.request.video is None:
            raise BadRequest(f"method={self.name} trains on one clip. Name it: video=clip.mp4 prompt='what it shows'.")
        if self.inverted.caption is None and "prompt" not in run.config["given"]:
            key = f"{self.name}.caption" if run.config["prompts_file"] else "prompt"
            raise BadRequest(f"method={self.name} learns a clip under its caption. Say what it shows: {key}='...'.")
        if self.inverted.caption is None:
            run.request.validate(size_multiple=1)
        run.request.check_size()
        self.check_channels(extra_channels(run.config["model"].get("path")))  # before an output folder is made
        clip = self.clip(run.request)
        clip.check()
        return clip

    # ------------------------------------------------------------------------------------------------ model

    @hookimpl
    def build_backbone(self, run: Run) -> Backbone:
        """The image model of the configuration, or the one inside an inflated model of the published layout."""
        path, variant = run.config["model"].get("path"), run.config["model"].get("variant")
        self.check_channels(extra_channels(path))  # before gigabytes are read
        _, dtype = device_and_dtype(run.config["placement"])
        unet = read_inflated(path, dtype, variant) if path else None
        return unet2d.load(path, dtype=dtype, variant=variant, denoiser=unet) if unet is not None else build_model(run)

    def open_denoiser(self, path: str, dtype: torch.dtype) -> ImageBackbone:
        """Only the image U-Net of an inflated model's folder; its temporal tensors are put in by ``attach``."""
        return ImageBackbone(read_inflated(path, dtype))

    @hookimpl(claims="self_attention")
    @contextmanager
    def attach(self, run: Run, backbone: Backbone) -> Iterator[None]:
        """Inflate the image model, whose self-attention sees other frames too, and put in what was learnt."""
        with super().attach(run, backbone):
            yield

    @contextmanager
    def surgery(self, run: Run, backbone: ImageBackbone) -> Iterator[None]:
        """ST-attention is in the image model inside the context, unless frames are left by themselves."""
        with st_attention(backbone, run.request.seed, self.name) if self.temporal else nullcontext():
            yield

    @property
    def inverts(self) -> bool:
        """Unless ``invert=none``."""
        return self.inverted.wanted

    def check_model(self, run: Run, backbone: Backbone) -> None:
        """Raise BadRequest for a model that this method cannot inflate."""
        super().check_model(run, backbone)
        self.check_channels(backbone.extra_channels)

    def check_channels(self, extra: int | None) -> None:
        """Raise BadRequest for a model of so many channels beside its latents; None where that is not known yet."""
        if extra:
            which, mend = (f"{extra} latent channels", "Use a model that reads none.")
            if extra == 1:
                which, mend = ("a latent channel", "Use method=depth, or a model that reads none.")
            raise BadRequest(
                f"This model reads {which} beside the noisy ones, such as depth or a masked picture, which {self.name} "
                f"does not supply. {mend}"
            )

    def learnt(self, run: Run, backbone: Backbone) -> tuple[dict[str, Tensor], str]:
        """As of every inflation, and before it what an inflated model of the published layout holds.

        Raises BadRequest, too, where either is incomplete, or ``temporal=False`` leaves no place for it.
        """
        if not self.temporal:
            if run.config["tuned"] is not None:
                raise BadRequest(
                    "temporal=false edits every frame by the image model as it is, which has no place for what was "
                    "tuned. Name the clip in place of tuned=: video=clip.mp4."
                )
            return {}, ""
        inside, path = carried(backbone.denoiser), str(run.config["model"].get("path"))
        tensors, file = super().learnt(run, backbone)
        tensors = from_published(tensors)
        for brought, source, needs in ((inside, path if inside else "", is_temporal), (tensors, file, self.learns)):
            names = {name for name, _ in backbone.denoiser.named_parameters() if needs(name)}
            if source and (lost := sorted(names - brought.keys())):
                raise BadRequest(
                    f"'{source}' is incomplete: {len(lost)} of the {len(names)} tensors that it must hold for this "
                    f"model are missing, first '{lost[0]}'. Copy it again, or give the model it was tuned on."
                )
        return {**self._drawn(run, backbone), **inside, **tensors}, file or path

    def _drawn(self, run: Run, backbone: Backbone) -> dict[str, Tensor]:
        """The temporal projections that a training draws and leaves as they are while others beside them train.

        What was put in belongs to what was learnt and is saved with it: another seed would draw others for an edit.
        """
        named = dict(backbone.denoiser.named_parameters()) if "trainer" in run.config else {}
        temporal = {name for name in named if is_temporal(name) and ".attn_temp." in name}
        left = {name for name in temporal if not self.learns(name)}
        return {name: named[name].detach().clone() for name in left} if left != temporal else {}

    def learns(self, name: str) -> bool:
        """Queries and temporal attention, as published; 112 tensors of Stable Diffusion 1.4."""
        return any(f".{module}." in name for module in self.trainable_modules)

    @hookimpl(claims="denoiser")
    def trainable(self, run: Run, backbone: Backbone) -> dict[str, Tensor]:
        """As of every inflation. Raises BadRequest where frames are left by themselves, or a module is not there."""
        if not self.temporal:
            raise BadRequest("temporal=false leaves out what trains. Train with temporal=true.")
        chosen = super().trainable(run, backbone)
        for module in self.trainable_modules:
            if not any(f".{module}." in name for name in chosen):
                raise BadRequest(
                    f"{self.name}.trainable_modules names '{module}', which no transformer block of this model has. "
                    f"As published it is [{', '.join(TRAINED)}]."
                )
        if not chosen:
            raise BadRequest(f"{self.name}.trainable_modules is empty, so nothing would train.")
        return chosen

    # --------------------------------------------------------------------------------------------- sampling

    @hookimpl
    def start_latents(self, run: Run, window: Window) -> Tensor:
        """The clip's inverted noise, or fresh noise where there is no clip."""
        if run.request.video is None or not self.inverted.wanted:
            return run.noise(window)
        return self.inverted.latents(run, window, self.clip(run.request), self.source_condition(run, window))

    def source_condition(self, run: Run, window: Window) -> Condition:
        """What guides the inversion beside its text."""
        return window.condition
