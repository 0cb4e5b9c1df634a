"""What a data source gives to a training: samples, in batches, drawn as a pure function of the step.

Everything random is keyed by the seed and by a sample's number in the whole run, so the number of workers and of
processes, and a resume, never change what is seen. F frames, H W pixels, h w latent cells, C latent channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

from vidgen_core.errors import BadRequest
from vidgen_core.noise import seed_of

if TYPE_CHECKING:
    from vidgen_core.data.latent_cache import LatentCache


@dataclass
class Sample:
    """One clip or image with its captions.

    Attributes:
        captions: One text per scene.
        scene_frames: Frames of each scene; they add up to F.
        frames: (F, 3, H, W) uint8; None where ``moments`` is given.
        moments: (F, 2 C, h, w) mean and log-variance of the VAE's posterior, from a cache.
        cache_keys: One key per scene under which the moments of its frames may be kept; empty: not to be kept.
        extra: More tensors by name, stacked over the batch.
        name: For messages.
        number: The sample's number in the whole run; it keys noise, timestep and dropped captions.
    """

    captions: tuple[str, ...]
    scene_frames: tuple[int, ...]
    frames: Tensor | None = None
    moments: Tensor | None = None
    cache_keys: tuple[str, ...] = ()
    extra: dict[str, Tensor] = field(default_factory=dict)
    name: str = ""
    number: int = 0


@dataclass
class Batch:
    """Samples of one frame count and size that are trained together by one process."""

    samples: list[Sample]
    draw: Draw
    skipped: tuple[tuple[str, str], ...] = ()  # broken items that were replaced: name, reason
    timestep: int | None = None  # one for all samples, as in validation; None draws them
    memory: dict[str, Any] = field(default_factory=dict)  # method -> what it recalls here; set by its objective
    part: str = ""  # the part of a mixture that it is from
    told: tuple[str, ...] | None = None  # conditions that it is trained under, such as text; None: all there are

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def num_frames(self) -> int:
        """F."""
        return sum(self.samples[0].scene_frames)


def of_one_size(batch: Batch) -> Batch:
    """The batch as it is. Raises BadRequest, which names two samples, where frames differ in their number or size."""
    sizes: dict[tuple[int, ...], str] = {}
    for sample in batch.samples:
        if sample.frames is not None:
            sizes.setdefault(tuple(sample.frames.shape), sample.name)
    if len(sizes) > 1:
        (f, _, h, w), (other_f, _, other_h, other_w) = list(sizes)[:2]
        one, other = list(sizes.values())[:2]
        raise BadRequest(
            f"A batch has mixed frame sizes: '{one}' is {f} frames of {h} x {w} pixels, '{other}' {other_f} of "
            f"{other_h} x {other_w}. Its data source must bring one size to a batch; files are scaled and cut to "
            "data.size, and with data=joint data.bucketing=true to the nearest of data.sizes."
        )
    return batch


@dataclass(frozen=True)
class Draw:
    """Which samples one process takes in one micro-batch.

    Attributes:
        numbers: The samples' numbers in the whole run.
        step: The optimiser step, from 0.
        micro: The micro-batch inside the step.
        rank: The process.
        progress: How much of the training is done, 0 to 1, for curricula.
        seed: The run's seed; validation has another.
        samples: How many the whole step takes, over all processes and micro-batches.
    """

    numbers: tuple[int, ...]
    step: int
    micro: int
    rank: int
    progress: float
    seed: int
    samples: int = 1

    def rng(self, number: int, *purpose: str) -> np.random.Generator:
        """A generator for one sample, keyed by its number."""
        return np.random.default_rng(seed_of(self.seed, "sample", number, *purpose))

    def shared_rng(self, *purpose: str) -> np.random.Generator:
        """A generator that is the same for all processes and micro-batches of the step."""
        return np.random.default_rng(seed_of(self.seed, "step", self.step, *purpose))


class Source(Protocol):
    """Where samples come from. ``draw`` runs in worker processes: it must be picklable and open its files lazily.

    Attributes:
        cache: What the VAE made of earlier samples; set by the training before workers start.
    """

    cache: LatentCache | None

    def held_out(self) -> Source | None:
        """Where validation draws from; None: from this source, with a seed of its own."""
        ...

    def __len__(self) -> int:
        """Samples of one epoch; 0 where they have no end."""
        ...

    def draw(self, draw: Draw) -> Batch:
        """The samples of one micro-batch, all of one frame count and size."""
        ...


def extras_of(source: Source) -> frozenset[str] | None:
    """Names of the tensors that samples of a source may bring in ``extra``, its attribute ``extras``; None: unknown."""
    found: frozenset[str] | None = getattr(source, "extras", None)
    return found


def recurring(source: Source) -> bool | None:
    """Whether every epoch shows the same frames under the same cache keys, a source's attribute ``recurring``: False
    where they are drawn at random, None where samples have no keys or it does not say."""
    found: bool | None = getattr(source, "recurring", None)
    return found


def sizes_of(source: Source) -> frozenset[tuple[int, int]]:
    """Heights and widths that frames of a source have, its attribute ``sizes``; none where it does not say."""
    found: frozenset[tuple[int, int]] = getattr(source, "sizes", frozenset())
    return found


def draw_of(
    step: int, micro: int, rank: int, *, accumulation: int, processes: int, batch_size: int, steps: int, seed: int
) -> Draw:
    """The draw of one process in one micro-batch: numbers run on over ranks, micro-batches and steps, in that order.

    So the samples of a step are the same however its global batch is cut into processes.
    """
    first = ((step * accumulation + micro) * processes + rank) * batch_size
    samples = accumulation * processes * batch_size
    return Draw(tuple(range(first, first + batch_size)), step, micro, rank, step / max(steps, 1), seed, samples)


def stack(samples: Sequence[Sample], name: str) -> Any:
    """One extra tensor of all samples, stacked. Raises BadRequest, which names two, where shapes differ."""
    import torch

    first = samples[0]
    for other in samples[1:]:
        if other.extra[name].shape != first.extra[name].shape:
            raise BadRequest(
                f"The data brings '{name}' of '{first.name}' as {tuple(first.extra[name].shape)}, but of "
                f"'{other.name}' as {tuple(other.extra[name].shape)}. All of one batch must have one shape."
            )
    return torch.stack([sample.extra[name] for sample in samples])
