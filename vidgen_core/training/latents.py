"""From the pixels of a batch to its latents: encoded in full precision, from the cache where it has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vidgen_core.data.pixels import to_model_range
from vidgen_core.data.sample import sizes_of
from vidgen_core.errors import BadRequest
from vidgen_core.noise import seed_of

if TYPE_CHECKING:
    from vidgen_core.data.sample import Batch, Sample, Source
    from vidgen_core.run import Run


def encoded(run: Run, batch: Batch, posterior: str = "sample") -> Tensor:
    """Scaled latents (B, C, F, h, w), drawn from the VAE's posterior, or its mean.

    Raises BadRequest for pixels that do not divide into latent cells.
    """
    device = run.backbone.device
    fresh = [sample for sample in batch.samples if sample.moments is None]
    # Autocast would leave targets of eight bits.
    with torch.autocast(device.type, enabled=False):
        if run.latent_cache is not None:
            for sample in fresh:
                sample.moments = _kept(run, sample)
        elif fresh:
            frames = torch.cat([_pixels(run, sample) for sample in fresh])
            moments = run.backbone.encode(to_model_range(frames.to(device)))
            for sample, part in zip(fresh, moments.split([sum(s.scene_frames) for s in fresh]), strict=True):
                sample.moments = part
    moments = torch.stack([sample.moments.to(device).float() for sample in batch.samples if sample.moments is not None])
    latents, deviation = of_posterior(moments)
    if posterior == "sample":
        latents = latents + deviation * keyed_normal(batch, latents.shape[1:], "posterior").to(latents)
    return latents * run.backbone.vae.config.scaling_factor


def check_sizes(run: Run, source: Source) -> None:
    """Raise BadRequest for a size that ``encoded`` would refuse, of a source that says its sizes: late, where there are
    several."""
    for height, width in sorted(sizes_of(source)):
        _check_size(run, height, width)


def check_pixels(run: Run, method: str) -> None:
    """For the ``check_data`` of a method that looks at frames: raise BadRequest where a cache leaves only latents."""
    if run.config["trainer"]["cache"] == "latents":
        raise BadRequest(
            f"method={method} looks at pixels, which trainer.cache=latents does not keep. Use trainer.cache=none."
        )


def of_posterior(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (B, C, F, h, w), not scaled, from the VAE's moments (B, F, 2 C, h, w)."""
    mean, log_variance = moments.transpose(1, 2).chunk(2, dim=1)
    return mean, torch.exp(0.5 * log_variance.clamp(-30, 20))


def _kept(run: Run, sample: Sample) -> Tensor:
    # Scene by scene and rounded as the cache keeps them, so that a sample is the same, bit for bit, whether it was
    # there or not and whatever else is in the batch.
    assert run.latent_cache is not None
    scenes = _pixels(run, sample).to(run.backbone.device).split(list(sample.scene_frames))
    keys = sample.cache_keys or (None,) * len(scenes)
    parts = []
    for key, scene in zip(keys, scenes, strict=True):
        # Batches are read ahead: what was not there when this one was read may have been kept since.
        moments = None if key is None else run.latent_cache.moments([key], [len(scene)])
        if moments is None:
            moments = run.backbone.encode(to_model_range(scene)).contiguous()
            if key is not None:
                run.latent_cache.put(key, moments)
        half = moments.to(scene.device).half()
        parts.append(half if half.isfinite().all() else moments)
    return torch.cat(parts)


def _pixels(run: Run, sample: Sample) -> Tensor:
    assert sample.frames is not None
    _check_size(run, *sample.frames.shape[-2:])
    return sample.frames


def _check_size(run: Run, height: int, width: int) -> None:
    multiple = run.backbone.size_multiple
    if height % multiple or width % multiple:
        raise BadRequest(
            f"Frames of {height} x {width} pixels do not divide by {multiple}, as this model needs. Choose another "
            "data.size, or other data.sizes."
        )


def keyed_normal(batch: Batch, shape: Sequence[int], purpose: str) -> Tensor:
    """(B, *shape) unit normal numbers on the CPU, a stream of its own for each sample's number."""
    rows, generator = [], torch.Generator()
    for sample in batch.samples:
        generator.manual_seed(seed_of(batch.draw.seed, purpose, sample.number))
        rows.append(torch.randn(tuple(shape), generator=generator))
    return torch.stack(rows)
