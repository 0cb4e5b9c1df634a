"""Scores of whole sets of videos: FID, FVD and Inception Score.

Every row and seed of an experiment is a set, and so are all videos of a folder. Sets are only comparable where they
have the same number of videos: the Frechet distance of fewer is greater.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vidgen_core.errors import BadRequest
from vidgen_core.metrics.distributions import frechet_distance, inception_score
from vidgen_core.metrics.feature_network import ClipNetwork, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vidgen_core.metrics.clip import Clip
    from vidgen_core.metrics.footage import Footage
    from vidgen_core.metrics.real import Real


class Frechet(ABC):
    """The Frechet distance of the set's features to those of the real videos; 0 is the same distribution.

    Args:
        clip: The network where no other is given.
        real: The real videos.
        network, size, values: See ``feature_network.load``.
        frames: Frames of a video that are looked at, the first ones; None takes all.
    """

    name: str
    columns: tuple[str, ...]
    numbers: tuple[str, ...]
    needs_captions = False

    def __init__(
        self,
        clip: Clip,
        real: Real,
        network: str | None = None,
        size: int = 0,
        values: str = "-1..1",
        frames: int | None = None,
    ) -> None:
        self._network = load(network, clip, size, values, f"metrics.{self.name}")
        self._real, self._frames = real, frames
        self._known: NDArray[np.float64] | None = None

    @abstractmethod
    def see(self, footage: Footage) -> NDArray[np.float64]:
        """What the set's number needs of one video: features (n, D)."""

    def score_set(self, seen: Sequence[NDArray[np.float64]]) -> Mapping[str, float | None]:
        """The distance. Raises BadRequest where there are too few real videos."""
        if self._known is None:
            self._known = np.concatenate([self.see(footage) for footage in self._real(self.name)])
        ours = np.concatenate(seen)
        if len(self._known) < 2:
            raise BadRequest(f"metric={self.name} needs two real videos or more. Give another real.path.")
        return {self.name: frechet_distance(ours, self._known) if len(ours) > 1 else None}

    def shown(self, footage: Footage) -> NDArray[np.uint8]:
        """The frames that are looked at. Raises BadRequest for a video that is too short."""
        if self._frames is None:
            return footage.frames
        if footage.count < self._frames:
            raise BadRequest(
                f"'{footage.path}' has {footage.count} frames, and metrics.{self.name}.frames={self._frames} are "
                "compared. Give a smaller number."
            )
        return footage.frames[: self._frames]


class Fid(Frechet):
    """FID: every frame is a sample (arXiv 1706.08500)."""

    name = "fid"
    columns = numbers = ("fid",)

    def see(self, footage: Footage) -> NDArray[np.float64]:
        """(F, D)."""
        return self._network.frames(self.shown(footage)).double().numpy()


class Fvd(Frechet):
    """FVD: every video is a sample (arXiv 1812.01717)."""

    name = "fvd"
    columns = numbers = ("fvd",)

    def see(self, footage: Footage) -> NDArray[np.float64]:
        """(1, D)."""
        return self._network.video(self.shown(footage))[None].double().numpy()


class InceptionScore:
    """Every video shows one thing surely, and all of them many things: 1 to the number of classes, the best.

    Without a network of the user's, the classes are the distinct captions of the set, and CLIP tells how a video fits
    each of them.

    Args:
        of: ``videos`` or ``frames``: what is a sample.

    The others are those of ``Frechet``.
    """

    columns = numbers = ("inception_score",)

    def __init__(
        self, clip: Clip, network: str | None = None, size: int = 0, values: str = "-1..1", of: str = "videos"
    ) -> None:
        if of not in ("videos", "frames"):
            raise BadRequest(f"metrics.inception_score.of={of} is not a choice: videos or frames.")
        self._network = load(network, clip, size, values, "metrics.inception_score")
        self._of_videos = of == "videos"
        self.needs_captions = network is None

    def see(self, footage: Footage) -> tuple[torch.Tensor, tuple[str, ...]]:
        """Logits (n, K), or the features that they are had from, and the captions."""
        if self._of_videos:
            return self._network.video(footage.frames, classes=True)[None], footage.captions
        return self._network.frames(footage.frames, classes=True), footage.captions

    def score_set(self, seen: Sequence[Any]) -> Mapping[str, float | None]:
        """The score of the whole set, in one split."""
        logits = torch.cat([found for found, _ in seen])
        if isinstance(self._network, ClipNetwork):
            captions = dict.fromkeys(caption for _, told in seen for caption in told)
            logits = self._network.logits(logits, list(captions))
        return {"inception_score": inception_score(logits.double().numpy())}
