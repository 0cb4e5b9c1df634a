"""The refinement stage of StreamingT2V (arXiv 2403.14773, section 4.3): finished frames, larger and sharper.

A run inside the run: it has its own size, steps and noise, and may have its own model. Frames go in as the video grows,
are enlarged, encoded and noised when the first chunk that holds them begins, and leave as they are done; so the main
memory depends on the steps and the chunk, the device's on the chunk alone, and neither on the length.
B videos, F frames, H W pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from vidgen_core.errors import BadRequest, VidgenError, nearest
from vidgen_core.models.backbone import Backbone
from vidgen_core.request import Request
from vidgen_core.run import FrameBlock, Run, attached, check_latents, lay_out
from vidgen_core.sampling import denoiser
from vidgen_streaming.blending import RandomizedBlending
from vidgen_streaming.sdedit import Sdedit

MULTIPLE = 8
"""What every model's height and width divide by; a model may ask for more."""

FAMILIES = {"UNet3DConditionModel": "unet3d", "UNet2DConditionModel": "unet2d"}
"""Class of a folder's network -> the module of ``vidgen_core.models`` that loads it."""


class Refinement:
    """Refines the frames of a run by SDEdit with randomized blending.

    Enter ``opened`` in the method's ``attach`` and return ``refined`` from its ``finish_frames``.

    Args:
        size: Height and width of the refined frames, or one number for both; None keeps the video's.
        chunk: Frames that are denoised together.
        overlap: Frames that a chunk shares with the one before it.
        strength: The noise that frames are given, as a share of the model's schedule, 0 < strength <= 1.
        steps: Denoising steps below that level.
        model: An option of ``model=``, a folder or a hub id; None refines with the run's own model.
        prompt_suffix: Follows the prompt of every scene.
        guidance_scale: None takes the run's.
        rescale: How far guidance is brought back to the conditional prediction's spread, 0 to 1.
        whole_overlap: Whether the earlier chunk may decide the whole overlap, as in the paper but not in its code.
        resize: How frames are brought to the size, ``bicubic`` or ``bilinear``.

    Attributes:
        owner: The method whose options these are, for messages.
        stage: Keys its noise and its record, so that two methods may each refine.
        chosen: Those of its options that say which noise levels are visited, for messages.

    Raises BadRequest, here and in ``opened``, for what cannot be refined.
    """

    owner = "streaming"
    stage = "refine"
    chosen: tuple[str, ...] = ("strength", "steps")

    def __init__(
        self,
        size: int | Sequence[int] | None = None,
        chunk: int = 24,
        overlap: int = 8,
        strength: float = 0.6,
        steps: int = 30,
        model: str | None = None,
        prompt_suffix: str = "",
        guidance_scale: float | None = None,
        rescale: float = 0.2,
        whole_overlap: bool = False,
        resize: str = "bicubic",
    ) -> None:
        sides = (size, size) if isinstance(size, int) else None if size is None else tuple(size)
        if sides is not None and (len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides)):
            raise BadRequest(
                f"{self.owner}.refine_size={list(sides)} is not a size. Write [height,width], two whole numbers."
            )
        self.size = sides
        self._check_multiple(MULTIPLE)
        if not 0 < strength <= 1:
            raise BadRequest(
                f"{self.owner}.refine_strength={strength} is no share of the noise schedule. Use a number above 0, "
                "which changes nothing, up to 1, which keeps nothing."
            )
        self.strength, self.steps = strength, steps
        self.sdedit = Sdedit(strength, rescale)
        try:
            self.blending = RandomizedBlending(chunk, overlap, whole_overlap, self.sdedit.scheduler)
        except BadRequest as error:
            raise BadRequest(
                f"{self.owner}.refine_chunk={chunk}, {self.owner}.refine_overlap={overlap}: {error}"
            ) from error
        self.model = None if model is None else model_config(model)
        self.prompt_suffix, self.guidance_scale = prompt_suffix, guidance_scale
        self.resize = resize
        self.run: Run | None = None

    @contextmanager
    def opened(self, run: Run, backbone: Backbone) -> Iterator[None]:
        """Inside the context the refining model is in place. A training refines nothing, nor do its samples."""
        if "trainer" in run.config:
            yield
            return
        config = {} if self.model is None else {"model": self.model}
        nested = run.nested(self.stage, self.request(run), {"sdedit": self.sdedit, "blending": self.blending}, config)
        if self.model is None:
            self._check(run, nested, backbone)
            lay_out(nested, backbone)
            self.run = nested
            yield
            return
        own = nested.moments.build_backbone(run=nested)
        self._check(run, nested, own)
        with attached(nested, own):
            run.provenance[self.stage] = {"weights": own.weights, "placement": nested.placement.record()}
            self.run = nested
            yield

    def request(self, run: Run) -> Request:
        """The same scenes on the same absolute frames, in the refined size."""

        def suffixed(video: Any) -> Any:
            scenes = [dataclasses.replace(s, prompt=s.prompt + self.prompt_suffix) for s in video.scenes]
            return dataclasses.replace(video, scenes=tuple(scenes))

        asked = run.request
        height, width = self.size or (asked.height, asked.width)
        return asked.replace(
            videos=tuple(map(suffixed, asked.videos)),
            height=height,
            width=width,
            num_inference_steps=self.steps,
            guidance_scale=asked.guidance_scale if self.guidance_scale is None else self.guidance_scale,
        )

    def refined(self, blocks: Iterator[FrameBlock]) -> Iterator[FrameBlock]:
        """The blocks of a stream, refined."""
        return blocks if self.run is None else self._refined(self.run, blocks)

    def _refined(self, run: Run, blocks: Iterator[FrameBlock]) -> Iterator[FrameBlock]:
        self.sdedit.clean = EncodedFrames(run, blocks, self.resize)
        denoise = denoiser(run)
        for group in run.groups:
            for window in run.moments.sample(run=run, group=group, denoise=denoise):
                check_latents(run, window)
                yield from run.decode(window)
                window.release()

    def _check(self, run: Run, nested: Run, backbone: Backbone) -> None:
        """Refuse, before the first step, a model that cannot refine, or not to this size or in so many steps."""
        if backbone.extra_channels:
            raise BadRequest(
                f"The refining model reads {backbone.extra_channels} latent channels beside the noisy ones, such as "
                f"depth, which refinement does not supply. Choose another {self.owner}.refine_model."
            )
        self._check_multiple(backbone.size_multiple)
        nested.backbone = backbone
        try:
            self.sdedit.scheduler(nested)
        except BadRequest as error:
            keys = [f"{self.owner}.refine_{option}={getattr(self, option)}" for option in self.chosen]
            raise BadRequest(f"{', '.join(keys)}: {error}") from error
        asked, wanted = run.request, nested.request
        if abs(asked.width * wanted.height / (asked.height * wanted.width) - 1) > 0.01:
            run.warn(
                f"frames of {asked.height}x{asked.width} are stretched to {self.owner}.refine_size="
                f"[{wanted.height},{wanted.width}], which has another aspect."
            )

    def _check_multiple(self, multiple: int) -> None:
        for side in self.size or ():
            if side % multiple:
                raise BadRequest(
                    f"{self.owner}.refine_size={list(self.size or ())}: {side} is not divisible by {multiple}, as the "
                    f"refining model needs. Use {side // multiple * multiple or multiple} or "
                    f"{(side // multiple + 1) * multiple}."
                )


class EncodedFrames:
    """A stream of frames as clean, scaled latents in the main memory, encoded when they are asked for.

    Spans are asked for in the order of their first frames; what lies before one is forgotten.
    """

    def __init__(self, run: Run, blocks: Iterator[FrameBlock], resize: str = "bicubic") -> None:
        self.run, self.blocks, self.resize = run, blocks, resize
        self.latents: dict[int, Tensor] = {}  # absolute frame -> (B, C, h, w)
        self.come = 0

    def __call__(self, span: range) -> Tensor:
        """(B, C, F, h, w), float32. Raises VidgenError for a stream of another length than the video's."""
        while self.come < span.stop:
            block = next(self.blocks, None)
            if block is None:
                self._refuse(self.come)
                break
            for latents in self._encoded(block.frames).unbind(2):
                self.latents[self.come] = latents
                self.come += 1
        if self.come >= self.run.request.num_frames:
            # Asked once more, the stream ends: what the run remembers of its last windows goes before all is refined.
            self._refuse(self.come + sum(block.frames.shape[1] for block in self.blocks))
        for frame in [frame for frame in self.latents if frame < span.start]:
            del self.latents[frame]
        return torch.stack([self.latents[frame] for frame in span], dim=2)

    def _encoded(self, frames: Tensor) -> Tensor:
        run, backbone = self.run, self.run.backbone
        pixels = frames.flatten(0, 1).to(backbone.device, torch.float32)
        size = (run.request.height, run.request.width)
        if tuple(pixels.shape[-2:]) != size:
            pixels = interpolate(pixels, size, mode=self.resize, antialias=True, align_corners=False).clamp(0, 1)
        latents = backbone.to_latents(pixels.unflatten(0, frames.shape[:2]), run.placement.vae_slice)
        return latents.to("cpu", torch.float32)

    def _refuse(self, found: int) -> None:
        wanted = self.run.request.num_frames
        if found != wanted:
            raise VidgenError(
                f"{found} frames came to be refined, but the video has {wanted}. A method that changes the number of "
                "frames comes after the refining one: write it later in method=[...]."
            )


def model_config(name: str) -> dict[str, Any]:
    """What ``model=`` would be for a refining model. Raises BadRequest for what is no diffusion model."""
    from vidgen_core.catalog import read_catalog
    from vidgen_core.config import compose
    from vidgen_core.models.loading import found
    from vidgen_core.plugin import conf_packages, discover

    names = read_catalog(conf_packages(discover()))["model"]
    if name in names:
        config: dict[str, Any] = compose([f"model={name}"]).config["model"]
        if config.get("family") not in FAMILIES.values():
            raise BadRequest(
                f"streaming.refine_model={name} is of the family '{config.get('family')}', which does not refine. Use "
                f"a model of {' or '.join(FAMILIES.values())}."
            )
        return config
    path = found(name)
    if path is None:
        raise BadRequest(
            f"streaming.refine_model={name} is no model of `vidgen list`, no folder, and no hub id 'owner/name'."
            f"{nearest(name, names)}"
        )
    return {"_target_": f"vidgen_core.models.{_family(name, path)}.load", "path": path}


def _family(name: str, path: str) -> str:
    from diffusers import UNet2DConditionModel

    from vidgen_core.models.loading import quiet

    wanted = f"A refining model has a {' or a '.join(FAMILIES)} in the folder 'unet'."
    try:
        with quiet():
            kind = UNet2DConditionModel.load_config(path, subfolder="unet").get("_class_name")
    except Exception as error:  # no such folder, no network, no JSON: diffusers raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise BadRequest(f"streaming.refine_model={name} cannot be read: {reason}. {wanted}") from error
    if kind not in FAMILIES:
        raise BadRequest(f"streaming.refine_model={name} holds {kind or 'no diffusion model'}. {wanted}")
    return FAMILIES[kind]
