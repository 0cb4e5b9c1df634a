"""Several sources as one: every optimiser step shows samples of one part, the same one in every process.

So the samples of a step have one length, networks run the same layers in all processes, and no process waits for
another that has longer clips. Which part a step shows, and which of its samples, is a function of the step alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from vidgen_core.data.epochs import NothingReadable
from vidgen_core.data.sample import Batch, Draw, Source, extras_of, recurring, sizes_of
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.noise import seed_of

if TYPE_CHECKING:
    from vidgen_core.data.latent_cache import LatentCache

TURN = (5**0.5 - 1) / 2
"""The golden ratio: its multiples, modulo 1, spread over every interval in proportion, however few they are."""

BLOCK = 4096
"""Steps that are counted together."""


@dataclass(frozen=True)
class Part:
    """One source of a mixture.

    Attributes:
        source: It gives one sample for each number of a draw.
        share: Of the steps, relative to the other parts'; 0 leaves the part out.
        told: Which conditions its samples are trained under, such as ``("text",)``; None: all that there are.
        times: Samples that stand for one of ``trainer.batch_size``: many images cost as much as one video.
        kind: Parts of one kind, such as sizes, stand in for one of which nothing can be read; empty: none does.
    """

    source: Source
    share: float = 1.0
    told: tuple[str, ...] | None = None
    times: int = 1
    kind: str = ""


class Mixture:
    """A source over named parts; see the module for how they take turns.

    A part counts its own samples, so each of its epochs shows everything once, whatever the others' shares. An epoch of
    the whole is as long as the part that needs longest to show everything once; the others begin anew meanwhile.

    Raises:
        BadRequest: no part has a share, or a share or ``times`` is no amount.
    """

    def __init__(self, parts: Mapping[str, Part]) -> None:
        for name, part in parts.items():
            if part.share < 0 or part.times < 1:
                raise BadRequest(f"'{name}' has share {part.share:g} and {part.times} samples; that is no amount.")
        self.parts = {name: part for name, part in parts.items() if part.share > 0}
        if not self.parts:
            raise BadRequest(f"No data is left: of {', '.join(parts) or 'nothing'} none has a share above 0.")
        shares = np.array([part.share for part in self.parts.values()], np.float64)
        self._ends = np.cumsum(shares / shares.sum())[:-1]
        self._counted = [np.zeros(len(self.parts), np.int64)]  # steps of each part before every block

    @property
    def cache(self) -> LatentCache | None:
        """That of every part."""
        return next(iter(self.parts.values())).source.cache

    @cache.setter
    def cache(self, cache: LatentCache | None) -> None:
        for part in self.parts.values():
            part.source.cache = cache

    @property
    def extras(self) -> frozenset[str] | None:
        """What samples of any part may bring; None where one does not say."""
        found = [extras_of(part.source) for part in self.parts.values()]
        known = [extras for extras in found if extras is not None]
        return frozenset().union(*known) if len(known) == len(found) else None

    @property
    def recurring(self) -> bool | None:
        """True where it is of all parts, False where one draws its frames at random."""
        found = {recurring(part.source) for part in self.parts.values()}
        return False if False in found else None if None in found else True

    @property
    def sizes(self) -> frozenset[tuple[int, int]]:
        """Those of all parts."""
        return frozenset().union(*(sizes_of(part.source) for part in self.parts.values()))

    def __len__(self) -> int:
        """Samples of an epoch, of which a part takes its share and shows ``times`` for each; 0 where one has no end."""
        if not all(len(part.source) for part in self.parts.values()):
            return 0
        total = sum(part.share for part in self.parts.values())
        return max(ceil(len(part.source) * total / (part.share * part.times)) for part in self.parts.values())

    def held_out(self) -> Mixture | None:
        """The parts that have something held out, in the same shares; None where none has."""
        found = {name: part.source.held_out() for name, part in self.parts.items()}
        kept = {n: replace(part, source=source) for n, part in self.parts.items() if (source := found[n]) is not None}
        return Mixture(kept) if kept else None

    def shown(self, step: int) -> str:
        """The name of the part that a step shows."""
        return list(self.parts)[int(self._order(np.array([step]))[0])]

    def draw(self, draw: Draw) -> Batch:
        """The samples of one micro-batch. Raises NothingReadable, which names part or kind, where none can be."""
        first = self.shown(draw.step)
        kind = self.parts[first].kind
        others = [name for name, part in self.parts.items() if kind and part.kind == kind and name != first]
        broken: dict[str, str] = {}
        for name in (first, *others):
            try:
                batch = self._drawn(draw, name)
            except NothingReadable as error:
                broken |= error.broken
                continue
            except BadRequest:
                raise
            except VidgenError as error:
                raise VidgenError(f"The data of {name}: {error}") from error
            return replace(batch, skipped=(*broken.items(), *batch.skipped))
        raise NothingReadable(broken, f"The data of {kind or first}: ")

    def _drawn(self, draw: Draw, name: str) -> Batch:
        part = self.parts[name]
        before = (self._steps_before(draw.step)[list(self.parts).index(name)] - draw.step) * draw.samples
        own = [(number + int(before)) * part.times + i for number in draw.numbers for i in range(part.times)]
        drawn = replace(draw, numbers=tuple(own), samples=draw.samples * part.times, seed=seed_of(draw.seed, name))
        batch = part.source.draw(drawn)
        # Noise, timesteps and what is dropped are keyed by numbers that no two parts share.
        most = max(part.times for part in self.parts.values())
        numbers = [number * most + i for number in draw.numbers for i in range(part.times)]
        for sample, number in zip(batch.samples, numbers, strict=True):
            sample.number = number
        return replace(batch, draw=replace(draw, numbers=tuple(numbers)), part=name, told=part.told)

    def _order(self, steps: np.ndarray) -> np.ndarray:
        """The part, by its place, that each of the steps shows."""
        return np.searchsorted(self._ends, ((steps + 0.5) * TURN) % 1, side="right")

    def _steps_before(self, step: int) -> np.ndarray:
        """How many of the first ``step`` steps show each part."""
        whole, rest = divmod(step, BLOCK)
        while len(self._counted) <= whole:
            self._counted.append(self._counted[-1] + self._count((len(self._counted) - 1) * BLOCK, BLOCK))
        counted: np.ndarray = self._counted[whole] + self._count(whole * BLOCK, rest)
        return counted

    def _count(self, first: int, steps: int) -> np.ndarray:
        return np.bincount(self._order(np.arange(first, first + steps)), minlength=len(self.parts))
