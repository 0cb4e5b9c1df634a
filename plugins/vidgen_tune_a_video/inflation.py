"""What all ways to make a video model of an image model have in common: their moments of a run, and what was learnt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.errors import BadRequest
from vidgen_core.inversion import ddim_changes
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.loading import file_hash
from vidgen_core.models.tuned import DENOISER, check_base, read_tensors, replaced, tuned_file
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_core.request import Request
from vidgen_core.run import Run


class Inflation(ABC):
    """An image model that sees whole clips while it is attached; ``tuned=`` brings what it learnt."""

    name = "tune_a_video"
    inflation: str

    any_base = False
    """Whether what was learnt goes with other weights of the image model too."""

    @property
    def inverts(self) -> bool:
        """Whether a clip is inverted."""
        return False

    foreign: frozenset[str] = frozenset()
    """Options that only other inflations have. A model may bring them, for edits; a user who writes one errs."""

    @abstractmethod
    def surgery(self, run: Run, backbone: ImageBackbone) -> AbstractContextManager[None]:
        """The image model is a video model inside the context."""

    @abstractmethod
    def learns(self, name: str) -> bool:
        """Whether the denoiser's parameter of that name trains."""

    def check_request(self, request: Request) -> None:
        """Raise BadRequest for what this inflation cannot make of any model."""
        for option in sorted(self.foreign):
            if f"methods.{self.name}.{option}" in request.given:
                raise BadRequest(f"{self.name}.{option} is no option of inflation={self.inflation}. Leave it out.")

    def check_model(self, run: Run, backbone: Backbone) -> None:
        """Raise BadRequest for a model that cannot be inflated."""
        if not isinstance(backbone, ImageBackbone):
            raise BadRequest(f"method={self.name} makes a video model of an image model; this one is none.")

    @hookimpl
    def prepare_request(self, request: Request) -> Request | None:
        """Refuse, before anything heavy, what can never work."""
        self.check_request(request)
        return None

    @hookimpl
    @contextmanager
    def attach(self, run: Run, backbone: Backbone) -> Iterator[None]:
        """Inflate the image model, and put in what was learnt."""
        self.check_request(run.request)  # a training prepares no request
        self.check_model(run, backbone)
        assert isinstance(backbone, ImageBackbone)
        before = backbone.scheduler_changes
        backbone.scheduler_changes = before | ddim_changes(backbone.scheduler_config, self.inverts)
        try:
            with (
                self.surgery(run, backbone),
                replaced(backbone.denoiser, *self.learnt(run, backbone), run.warn, self.name),
            ):
                yield
        finally:
            backbone.scheduler_changes = before

    def learnt(self, run: Run, backbone: Backbone) -> tuple[dict[str, Tensor], str]:
        """What was tuned, by its name in the network, and the file it comes from; nothing without ``tuned=``.

        Raises BadRequest for a file that cannot be read, or belongs to other weights of the image model.
        """
        if run.config["tuned"] is None:
            return {}, ""
        file = tuned_file(run.config["tuned"], self.name)
        tensors, base = read_tensors(file)
        if not self.any_base:
            check_base(base, backbone, file)
        run.provenance["tuned"] = {file.name: file_hash(file)}
        return {name.removeprefix(DENOISER): tensor for name, tensor in tensors.items()}, str(file)

    @hookimpl(claims="denoiser")
    def trainable(self, run: Run, backbone: Backbone) -> dict[str, Tensor]:
        """Every parameter that this inflation learns."""
        named = backbone.denoiser.named_parameters()
        return {f"{DENOISER}{name}": parameter for name, parameter in named if self.learns(name)}
