"""The noise that an edit starts from: the clip, encoded and inverted, kept beside what was tuned."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from vidgen_core.conditioning import Branches, Condition
from vidgen_core.data.one_clip import OneClip
from vidgen_core.data.pixels import to_model_range
from vidgen_core.errors import BadRequest
from vidgen_core.inversion import inversion, reached, reconstruction
from vidgen_core.noise import keyed_noise, seed_of
from vidgen_core.training.latents import of_posterior
from vidgen_core.tuned_run import tuned_config
from vidgen_tune_a_video import clip_cache

if TYPE_CHECKING:
    from vidgen_core.run import Run, Window


class Inverted:
    """DDIM inversion of the source clip.

    Args:
        invert: ``empty``: without text, as published; ``prompt``: with the clip's caption; ``none``.
        caption: The clip's caption; None takes the first prompt of the tuning.
        steps: None takes as many as the sampling has.
        strength: Share of the way to noise, 0 to 1; an edit that starts earlier keeps more of the clip.
        method: Whose options these are.
    """

    def __init__(self, invert: str, caption: str | None, steps: int | None, strength: float, method: str) -> None:
        self.method = method
        self.strength = strength
        self.wanted = invert != "none"
        self.with_caption = invert == "prompt"
        self.caption = caption
        self.steps = steps

    def latents(self, run: Run, window: Window, clip: OneClip, condition: Condition) -> Tensor:
        """(B, C, F, h, w): the inverted noise of the window's frames, the same for every video of the batch.

        Args:
            condition: What guides the inversion beside its text.

        Raises BadRequest where the window reaches beyond the clip, or the scheduler cannot follow an inversion.
        """
        self._check(run, window, clip)
        steps = self.steps or run.request.num_inference_steps
        # One step at least, whatever the strength: of none there would be nothing to sample.
        walked = max(round(self.strength * steps), 1)
        window.first_step = _nearest_step(run, reached(run, steps, walked))
        way = Way(self.prompt(run) if self.with_caption else "", steps, walked)
        file = _cache_file(run, window, clip, condition, way)
        found = clip_cache.read(file, ("noise", "error"))
        told = f"the inversion in {walked} steps was read from the cache"
        if found is None:
            told = f"inverted in {walked} steps"
            found = _invert(run, condition, clean_latents(run, window, clip), way)
            clip_cache.write(found, file)
        error = float(found["error"])
        run.provenance["inversion"] = {
            "steps": walked,
            "of": steps,
            "prompt": way.prompt,
            "reconstruction_error": round(error, 4),
        }
        print(f"{told}; sampling back without guidance is {error:.1%} off", file=sys.stderr)
        return found["noise"].to(run.backbone.device).expand(len(run.request.videos), -1, -1, -1, -1)

    def prompt(self, run: Run) -> str:
        """The clip's caption; the empty text, with a warning, where nobody said it."""
        caption = self.caption or tuned_config(run.config["tuned"]).get("prompt")
        if isinstance(caption, list):
            caption = " ".join(caption)
        if not caption:
            run.warn(f"nobody said what the clip shows ({self.method}.caption='...'), so it is inverted without text.")
        return str(caption or "")

    def _check(self, run: Run, window: Window, clip: OneClip) -> None:
        scheduler = type(run.make_scheduler()).__name__
        if scheduler != "DDIMScheduler":
            raise BadRequest(
                f"Edits start from noise that was inverted by DDIM, and {scheduler} does not lead back from it. Use "
                f"scheduler=ddim, or start afresh: {self.method}.invert=none."
            )
        if window.span.stop > len(clip.indices):
            raise BadRequest(f"The clip has {len(clip.indices)} frames; {window.span.stop} are to be made of it.")


class Way(NamedTuple):
    """How a clip is inverted: under which text, on a grid of how many steps, and how many of them."""

    prompt: str
    steps: int
    walked: int


def clean_latents(run: Run, window: Window, clip: OneClip) -> Tensor:
    """(1, C, F, h, w) scaled latents of the clip's frames in the window, drawn from the VAE's posterior, on the CPU.

    Its mean would not do: where a picture is flat, only that little noise grows into the noise of the inversion. What
    is drawn belongs to the clip's frame: it is the same in every window and for every seed.
    """
    frames = clip.frames()[window.span.start : window.span.stop]
    moments = run.backbone.encode(to_model_range(frames.to(run.backbone.device)), run.placement.vae_slice)
    mean, deviation = of_posterior(moments.float().cpu()[None])
    shape = (mean.shape[1], mean.shape[3], mean.shape[4])
    drawn = keyed_noise(seed_of(clip.content), [0], window.span, shape, stage="posterior")
    return (mean + deviation * drawn) * run.backbone.vae.config.scaling_factor


def _nearest_step(run: Run, level: int) -> int:
    """The sampling step whose timestep is nearest to the one that the inversion reached; the noisier of two."""
    timesteps = run.timesteps(run.make_scheduler()).tolist()
    return min(range(len(timesteps)), key=lambda index: abs(timesteps[index] - level))


def _invert(run: Run, condition: Condition, clean: Tensor, way: Way) -> dict[str, Tensor]:
    """``noise``, and ``error``: how far off the clip is to which it leads back, relative to the clip."""
    print(f"inverting the clip: {way.walked} steps to its noise, and as many back to compare", file=sys.stderr)
    noise = deque(inversion(run, condition, clean, way.steps, way.prompt, way.walked), maxlen=1).pop()
    back = reconstruction(run, condition, noise, way.steps, way.prompt, way.walked).cpu()
    lost = (back - clean).square().mean().sqrt() / clean.square().mean().sqrt()
    return {"noise": noise.cpu().contiguous(), "error": lost}


def _cache_file(run: Run, window: Window, clip: OneClip, condition: Condition, way: Way) -> Path | None:
    """Where the inverted noise is kept, named by all that it depends on; None where it is not kept."""
    folder = clip_cache.beside_the_weights(run, "inverted")
    if folder is None:
        return None
    backbone = run.backbone
    weights = [backbone.weights or run.config["model"], run.provenance.get("tuned")]  # drawn weights have no file
    network = sorted(name for name, _ in backbone.denoiser.named_parameters())  # without its temporal layers another
    schedule = [backbone.sampling_config, run.config["scheduler"]]
    facts = [weights, network, schedule, str(backbone.dtype), clip.content, [window.span.start, window.span.stop], way]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for tensor in _tensors(condition):
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return folder / f"{digest.hexdigest()[:24]}.safetensors"


def _tensors(condition: Any) -> list[Tensor]:
    # What conditions the inversion beside its text, such as depth.
    found = []
    for name in sorted(condition):
        value = condition[name]
        if name != "text":
            found += [v for v in ((value.cond,) if isinstance(value, Branches) else (value,)) if isinstance(v, Tensor)]
    return found
