"""Other ways to make a video model of an image model, trained on many videos: ``data=folder`` or ``data=shards``.

They differ in the layers that they put behind parts of the image model and in what of it all trains. Every one leaves
the image model's names, treats frames as images inside its parts, and begins as the image model, frame by frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from vidgen_core import hookimpl
from vidgen_core.errors import BadRequest
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.inflation import inserted
from vidgen_core.models.tuned import check_base, read_tensors, replaced, tuned_file
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_core.noise import seed_of
from vidgen_core.request import Request
from vidgen_core.run import Run
from vidgen_tune_a_video import make_a_video, vdm, video_ldm
from vidgen_tune_a_video.published import TEMPORAL


class Inflation:
    """Temporal layers, drawn from the seed or read from ``tuned=``, inside an image model.

    Args:
        temporal: False leaves every temporal layer out, which gives the image model, frame by frame.
    """

    name = "tune_a_video"
    inflation: str

    any_base = False
    """Whether what was learnt goes with other weights of the image model too."""

    def __init__(self, temporal: bool = True) -> None:
        self.temporal = temporal

    def layers(self, run: Run, backbone: ImageBackbone) -> dict[str, nn.Module]:
        """Fresh layers, by the name of the module that each follows."""
        raise NotImplementedError

    def learns(self, name: str) -> bool:
        """Whether the parameter of that name trains."""
        return is_temporal(name)

    # ---------------------------------------------------------------------------------------------- request

    @hookimpl
    def prepare_request(self, request: Request) -> None:
        """Refuse a clip: nothing here would look at it."""
        if request.video is not None:
            raise BadRequest(
                f"inflation={self.inflation} learns from many videos and edits none: data=folder data.path=... in "
                "place of video=. One clip is learnt and edited by inflation=st_attention."
            )

    # ------------------------------------------------------------------------------------------------ model

    @hookimpl
    @contextmanager
    def attach(self, run: Run, backbone: Backbone) -> Iterator[None]:
        """Put the temporal layers in, and what was learnt into them."""
        if not isinstance(backbone, ImageBackbone):
            raise BadRequest(f"method={self.name} makes a video model of an image model; this one is none.")
        with ExitStack() as stack:
            if self.temporal:
                made = self.fresh(run, backbone)
                stack.enter_context(inserted(made, backbone.denoiser, TEMPORAL, lambda: backbone.frames))
            if run.config["tuned"] is not None:
                stack.enter_context(replaced(backbone.denoiser, self.learnt(run, backbone), run.config["tuned"]))
            yield

    def fresh(self, run: Run, backbone: ImageBackbone) -> dict[str, nn.Module]:
        """The layers as they begin, on the model's device."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed_of(run.request.seed, "inflation", self.inflation))
            made = self.layers(run, backbone)
        return {name: layer.to(backbone.device, backbone.dtype) for name, layer in made.items()}

    def learnt(self, run: Run, backbone: Backbone) -> Mapping[str, Tensor]:
        """What was tuned, by its name in the network; without the temporal layers where they are left out.

        Raises BadRequest where it belongs to another inflation, or to another image model and cannot do without it.
        """
        file = tuned_file(run.config["tuned"], self.name)
        tensors, base = read_tensors(file)
        tensors = {name.removeprefix("denoiser."): tensor for name, tensor in tensors.items()}
        if not self.any_base:
            check_base(base, backbone, file)
        if not self.temporal:
            tensors = {name: tensor for name, tensor in tensors.items() if not is_temporal(name)}
        own = {name for name, _ in backbone.denoiser.named_parameters() if self.learns(name)}
        if other := own ^ tensors.keys():
            raise BadRequest(
                f"'{file}' is not what inflation={self.inflation} learns of this model, first '{min(other)}': it was "
                "tuned with another inflation or another size of model."
            )
        return tensors

    # --------------------------------------------------------------------------------------------- training

    @hookimpl
    def trainable(self, run: Run, backbone: Backbone) -> dict[str, Tensor]:
        """Every parameter that this kind of inflation learns."""
        if not self.temporal:
            raise BadRequest("temporal=false leaves out what trains. Train with temporal=true.")
        named = backbone.denoiser.named_parameters()
        return {f"denoiser.{name}": p for name, p in named if self.learns(name)}


class VideoLDM(Inflation):
    """Temporal layers mixed into a frozen image model; what they learn goes with any fine-tune of that model."""

    inflation = "video_ldm"
    any_base = True

    def layers(self, run: Run, backbone: ImageBackbone) -> dict[str, nn.Module]:
        return video_ldm.layers(backbone)


class MakeAVideo(Inflation):
    """Pseudo-3D layers, which learn from videos without text (``objective.caption_dropout=1``) at their frame rate.

    The frame rate is the request's: write ``fps=`` when the videos of a training have another.
    """

    inflation = "make_a_video"

    def layers(self, run: Run, backbone: ImageBackbone) -> dict[str, nn.Module]:
        return make_a_video.layers(backbone, lambda: run.request.fps)


class VDM(Inflation):
    """Attention along frames with relative positions; the whole model trains, on clips and on images at once.

    Args:
        reach: The farthest distance, in frames, with a position of its own; farther ones share it.
        images: How many frames at the end of each training clip count as images of their own.
    """

    inflation = "vdm"

    def __init__(self, temporal: bool = True, reach: int = 15, images: int = 0) -> None:
        super().__init__(temporal)
        self.reach, self.images = reach, images

    def layers(self, run: Run, backbone: ImageBackbone) -> dict[str, nn.Module]:
        return vdm.layers(backbone, self.reach, lambda: 0 if run.batch is None else self.images)

    def learns(self, name: str) -> bool:
        return True


INFLATIONS: dict[str, type[Inflation]] = {kind.inflation: kind for kind in (VideoLDM, MakeAVideo, VDM)}


def is_temporal(name: str) -> bool:
    """Whether a parameter of that name belongs to an inserted layer."""
    return TEMPORAL in name.split(".")
