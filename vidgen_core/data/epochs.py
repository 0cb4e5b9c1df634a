"""Sources over a list of items: which item a sample's number means, and what happens where one cannot be read.

Number n is place ``n % len`` of epoch ``n // len``; the order of an epoch is a permutation keyed by the seed and the
epoch. An item that cannot be read is replaced by the next one in that order and named in ``Batch.skipped``. So a sample
is a function of its number, of the seed and of the files, whoever reads it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vidgen_core.data.sample import Batch, Draw, Sample
from vidgen_core.errors import VidgenError
from vidgen_core.noise import seed_of

if TYPE_CHECKING:
    from torch import Tensor

    from vidgen_core.data.latent_cache import LatentCache

NAMED = 3
"""Broken items that a message names."""


class Broken(Exception):
    """An item cannot be read; ``str(error)`` says why."""


class NothingReadable(VidgenError):
    """Every item that a batch could be made of is broken.

    Args:
        broken: Name -> reason.
        of: What the message begins with.
    """

    def __init__(self, broken: Mapping[str, str], of: str = "") -> None:
        first = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in list(broken.items())[:NAMED])
        more = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        super().__init__(f"{of}None of the {len(broken)} items of the data can be used. {first}{more}.")
        self.broken, self.of = dict(broken), of

    def __reduce__(self) -> Any:  # worker processes hand it over
        return type(self), (self.broken, self.of)


class ItemSource(ABC):
    """A source over items 0 .. len - 1. A subclass says what an item is; see the module for which item is drawn.

    Args:
        shuffle: Whether epochs are permuted; else every epoch takes the items in their order.

    Attributes:
        cache: What the VAE made of scenes, or None. Set it before workers start; pixels of a sample whose scenes are
            all kept are not decoded.
    """

    cache: LatentCache | None = None

    def __init__(self, shuffle: bool = True) -> None:
        self.shuffle = shuffle
        self._orders: dict[tuple[int, int, int | None], np.ndarray] = {}

    @abstractmethod
    def __len__(self) -> int:
        """Items, which are the samples of an epoch."""

    @abstractmethod
    def name(self, item: int) -> str:
        """What messages call an item."""

    @abstractmethod
    def load(self, item: int, scenes: int | None, rng: np.random.Generator) -> Sample:
        """An item as a sample; ``rng`` is fresh for every sample and try.

        Args:
            scenes: How many scenes it shows, where the batch agreed on a number.

        Raises:
            Broken, VidgenError, OSError, ValueError: it cannot be read.
        """

    def held_out(self) -> ItemSource | None:
        """The source that validation draws from, the same samples at every validation; None where there is none."""
        return None

    def agreed_scenes(self, draw: Draw) -> Sequence[int | None]:
        """Numbers of scenes that all samples of a step may share, where a batch has several: the first is wanted, and
        the others are for when no item that shows so many can be read. None: the number never differs."""
        return (None,)

    def items_with(self, scenes: int) -> np.ndarray:
        """The items, in their order, that may show so many scenes."""
        return np.arange(len(self))

    def permuted(self, rng: np.random.Generator) -> np.ndarray:
        """All items in the order of an epoch that is shuffled."""
        return rng.permutation(len(self))

    def draw(self, draw: Draw) -> Batch:
        """The samples of one micro-batch. Raises NothingReadable where every item is broken."""
        broken: dict[str, str] = {}
        for scenes in self.agreed_scenes(draw) if len(draw.numbers) > 1 else (None,):
            samples: list[Sample] = []
            for number in draw.numbers:
                sample = self._sample(draw, number, scenes, broken)
                if sample is None:
                    break
                samples.append(sample)
            else:
                return Batch(samples, draw, tuple(broken.items()))
        raise NothingReadable(broken)

    def complete(self, sample: Sample, decode: Callable[[], Tensor]) -> Sample:
        """The sample with its moments where the cache has all of them, else with its frames."""
        if self.cache is not None and sample.cache_keys:
            sample.moments = self.cache.moments(sample.cache_keys, sample.scene_frames)
        if sample.moments is None:
            sample.frames = decode()
        return sample

    def _sample(self, draw: Draw, number: int, scenes: int | None, broken: dict[str, str]) -> Sample | None:
        """The sample of a number, or None where no item can be read; ``broken`` gets name and reason of those."""
        epoch, place = divmod(number, len(self))
        order = self._order(draw.seed, epoch, scenes)
        for i in range(len(order)):
            item = int(order[(place + i) % len(order)])
            try:
                sample = self.load(item, scenes, draw.rng(number))
            except (Broken, VidgenError, OSError, ValueError) as error:  # the last of a path that holds a NUL
                broken[self.name(item)] = str(error)
                continue
            sample.number = number
            return sample
        return None

    def _order(self, seed: int, epoch: int, scenes: int | None) -> np.ndarray:
        key = (seed, epoch, scenes)
        if key not in self._orders:
            if self.shuffle:
                order = self.permuted(np.random.default_rng(seed_of(seed, "epoch", epoch)))
            else:
                order = np.arange(len(self))
            if scenes is not None:
                order = order[np.isin(order, self.items_with(scenes))]
            while len(self._orders) > 7:  # a batch may lie in two epochs, and each number of scenes has an order
                del self._orders[next(iter(self._orders))]
            self._orders[key] = order
        return self._orders[key]
