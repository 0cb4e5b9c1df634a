"""The default objective: noise a batch, let the network see its captions, and predict what was added.

B samples, C channels, F frames, h w latent cells. Everything random is keyed by the sample's number in the run.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.errors import BadRequest
from vidgen_core.noise import seed_of
from vidgen_core.request import Request, VideoRequest, single_scene
from vidgen_core.run import Run, Window
from vidgen_core.training.latents import encoded, keyed_normal

if TYPE_CHECKING:
    from vidgen_core.data.sample import Batch, Draw, Sample


@dataclass
class Prediction:
    """One denoising step of a batch, for ``losses``. All but ``timesteps`` (B,) are (B, C, F, h, w)."""

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    noisy: Tensor
    target: Tensor
    output: Tensor  # float32
    window: Window
    scheduler: Any  # the noise schedule, a DDPMScheduler


class Denoising:
    """Mean squared error of the prediction against its target (DDPM, arXiv 2006.11239, eq. 14).

    Args:
        timesteps: ``uniform``, or ``stratified``: one from every equal part of the range.
        offset_noise: Strength of noise that is equal over all cells of a frame and channel.
        snr_gamma: Min-SNR weighting of timesteps; None weights all alike.
        caption_dropout: Share of samples whose every caption is emptied.
        posterior: ``sample`` draws latents from the VAE's posterior, ``mean`` takes its mean.
    """

    def __init__(
        self,
        timesteps: str = "uniform",
        offset_noise: float = 0.0,
        snr_gamma: float | None = None,
        caption_dropout: float = 0.0,
        posterior: str = "sample",
    ) -> None:
        self.spread = timesteps
        self.offset_noise = offset_noise
        self.snr_gamma = snr_gamma
        self.caption_dropout = caption_dropout
        self.posterior = posterior
        self._scheduler: Any = None

    @hookimpl
    def training_step(self, run: Run, batch: Batch) -> Prediction:
        """Encode, noise, condition and predict one batch."""
        scheduler = self.noise_schedule(run)
        latents = self.latents(run, batch)
        noise = self.noise(batch, latents)
        timesteps = self.timesteps(batch, scheduler.config.num_train_timesteps).to(latents.device)
        window = self.conditioned(run, batch)
        return denoised(run, window, scheduler, latents, noise, timesteps)

    @hookimpl
    def losses(self, run: Run, batch: Batch, prediction: Any) -> dict[str, Tensor]:
        """``denoising``: the mean squared error, weighted by timestep where asked."""
        error = (prediction.output - prediction.target.float()).square().flatten(1).mean(1)
        if self.snr_gamma is not None:
            error = error * self.weights(prediction.timesteps, run)
        return {"denoising": error.mean()}

    def latents(self, run: Run, batch: Batch) -> Tensor:
        """The clean latents (B, C, F, h, w) of a batch."""
        return encoded(run, batch, self.posterior)

    def noise_schedule(self, run: Run) -> Any:
        """DDPM with the checkpoint's betas, made once; options of the scheduler that it shares hold as in sampling."""
        if self._scheduler is None:
            from diffusers import DDPMScheduler

            from vidgen_core.sampling import make_scheduler

            known = inspect.signature(DDPMScheduler.__init__).parameters
            options = (run.config.get("scheduler") or {}).get("options") or {}
            self._scheduler = DDPMScheduler.from_config(
                make_scheduler(run.backbone.scheduler_config).config,
                **{key: value for key, value in options.items() if key in known},
            )
            if self._scheduler.config.prediction_type not in ("epsilon", "v_prediction", "sample"):
                raise BadRequest(f"Nobody can train a prediction_type '{self._scheduler.config.prediction_type}'.")
        return self._scheduler

    def timesteps(self, batch: Batch, count: int) -> Tensor:
        """(B,) integers in [0, count); all the same where the batch fixes one, as in validation."""
        if batch.timestep is not None:
            return torch.full((len(batch),), batch.timestep)
        if self.spread == "stratified":
            rng = np.random.default_rng(seed_of(batch.draw.seed, "timesteps", *batch.draw.numbers))
            places = (rng.permutation(len(batch)) + rng.random(len(batch))) / len(batch)
            return torch.from_numpy((places * count).astype(np.int64))
        drawn = [batch.draw.rng(sample.number, "timestep").integers(count) for sample in batch.samples]
        return torch.tensor(drawn)

    def noise(self, batch: Batch, latents: Tensor) -> Tensor:
        """Unit normal noise like the latents, and an offset for each frame and channel where asked."""
        noise = keyed_normal(batch, latents.shape[1:], "noise").to(latents)
        if self.offset_noise:
            offsets = keyed_normal(batch, (*latents.shape[1:3], 1, 1), "offset noise").to(latents)
            noise = noise + self.offset_noise * offsets
        return noise

    def conditioned(self, run: Run, batch: Batch) -> Window:
        """The batch's window with its named conditions; captions are dropped here."""
        dropped = [self.drops(batch.draw, sample) and batch.timestep is None for sample in batch.samples]
        run.request = request_of(run, batch, dropped)
        span = range(batch.num_frames)
        return run.conditioned(Window(span, span))

    def drops(self, draw: Draw, sample: Sample) -> bool:
        """Whether this sample trains without its captions."""
        return bool(self.caption_dropout) and draw.rng(sample.number, "caption").random() < self.caption_dropout

    def weights(self, timesteps: Tensor, run: Run) -> Tensor:
        """(B,) Min-SNR weights (arXiv 2303.09556, section 3.4)."""
        from diffusers.training_utils import compute_snr

        scheduler = self.noise_schedule(run)
        snr = compute_snr(scheduler, timesteps).clamp(min=1e-8)  # zero terminal SNR has none at the last step
        least = torch.clamp(snr, max=self.snr_gamma)
        kind = scheduler.config.prediction_type
        return least / snr if kind == "epsilon" else least / (snr + 1) if kind == "v_prediction" else least


def denoised(run: Run, window: Window, scheduler: Any, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Prediction:
    """The network's prediction for noised latents under the window's conditions, and what it should have been."""
    noisy = scheduler.add_noise(latents, noise, timesteps)
    kind = scheduler.config.prediction_type
    if kind == "v_prediction":
        target = scheduler.get_velocity(latents, noise, timesteps)
    else:
        target = noise if kind == "epsilon" else latents
    inputs = run.backbone.prepare(window.condition, ("cond",))
    output = run.backbone.predict(noisy, timesteps, inputs).float()
    return Prediction(latents, noise, timesteps, noisy, target, output, window, scheduler)


def request_of(run: Run, batch: Batch, dropped: Sequence[bool]) -> Request:
    """A request for exactly what the batch shows, its captions laid on its frames by the methods that do so."""
    videos = tuple(
        VideoRequest(("",) * len(s.captions) if drop else s.captions, index=s.number, name=s.name, spans=s.scene_frames)
        for s, drop in zip(batch.samples, dropped, strict=True)
    )
    request = dataclasses.replace(run.request, videos=videos, num_frames=batch.num_frames)
    return single_scene(run.moments.prepare_request(request=request))
