"""Other ways to make a video model of an image model, trained on many videos: ``data=folder`` or ``data=shards``.

They differ in the layers that they put behind parts of the image model and in what of it all trains. Every one leaves
the image model's names, treats frames as images inside its parts, and begins as the image model, frame by frame.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from vidgen_core import hookimpl
from vidgen_core.errors import BadRequest
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.inflation import drawn, inserted
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_core.request import Request
from vidgen_core.run import Run
from vidgen_tune_a_video import make_a_video, vdm, video_ldm
from vidgen_tune_a_video.inflation import Inflation
from vidgen_tune_a_video.published import TEMPORAL, is_temporal


class TemporalLayers(Inflation):
    """Temporal layers, drawn from the seed or read from ``tuned=``, inside an image model.

    Args:
        temporal: False leaves every temporal layer out, which gives the image model, frame by frame.
    """

    def __init__(self, temporal: bool = True) -> None:
        self.temporal = temporal

    @abstractmethod
    def layers(self, run: Run, backbone: ImageBackbone) -> dict[str, nn.Module]:
        """Fresh layers, by the name of the module that each follows."""

    def learns(self, name: str) -> bool:
        return is_temporal(name)

    def check_request(self, request: Request) -> None:
        """Refuse a clip as well: nothing here would look at it."""
        super().check_request(request)
        if request.video is not None:
            raise BadRequest(
                f"inflation={self.inflation} learns from many videos and edits none: data=folder data.path=... in "
                "place of video=. One clip is learnt and edited by inflation=st_attention."
            )

    @contextmanager
    def surgery(self, run: Run, backbone: ImageBackbone) -> Iterator[None]:
        """The temporal layers are in the image model inside the context."""
        key = (run.request.seed, "inflation", self.inflation)
        made = drawn(lambda: self.layers(run, backbone), backbone, *key) if self.temporal else {}
        with inserted(made, backbone.denoiser, TEMPORAL, lambda: backbone.frames):
            yield

    def learnt(self, run: Run, backbone: Backbone) -> tuple[dict[str, Tensor], str]:
        """As of every inflation; without the temporal layers where they are left out.

        Raises BadRequest, too, for what belongs to another inflation.
        """
        tensors, file = super().learnt(run, backbone)
        if not self.temporal:
            tensors = {name: tensor for name, tensor in tensors.items() if not is_temporal(name)}
        own = {name for name, _ in backbone.denoiser.named_parameters() if self.learns(name)}
        if file and (other := own ^ tensors.keys()):
            raise BadRequest(
                f"'{file}' is not what inflation={self.inflation} learns of this model, first '{min(other)}': it was "
                "tuned with another inflation or another size of model."
            )
        return tensors, file

    @hookimpl(claims="denoiser")
    def trainable(self, run: Run, backbone: Backbone) -> dict[str, Tensor]:
        """Every parameter that this inflation learns. Raises BadRequest where the layers are left out."""
        if not self.temporal:
            raise BadRequest("temporal=false leaves out what trains. Train with temporal=true.")
        return super().trainable(run, backbone)


class VideoLDM(TemporalLayers):
    """Temporal layers mixed into a frozen image model; what they learn goes with any fine-tune of that model."""

    inflation = "video_ldm"
    any_base = True

    def layers(self, run: Run, backbone: ImageBackbone) -> dict[str, nn.Module]:
        return video_ldm.layers(backbone)


class MakeAVideo(TemporalLayers):
    """Pseudo-3D layers, which learn from videos without text (``objective.caption_dropout=1``) at their frame rate.

    The frame rate is the request's: write ``fps=`` when the videos of a training have another.
    """

    inflation = "make_a_video"

    def layers(self, run: Run, backbone: ImageBackbone) -> dict[str, nn.Module]:
        return make_a_video.layers(backbone, lambda: run.request.fps)


class VDM(TemporalLayers):
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


INFLATIONS: dict[str, type[TemporalLayers]] = {kind.inflation: kind for kind in (VideoLDM, MakeAVideo, VDM)}
