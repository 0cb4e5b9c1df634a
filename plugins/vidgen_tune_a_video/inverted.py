"""The noise that an edit starts from: the clip, encoded and inverted, kept beside what was tuned."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidgen_core.conditioning import Branches, Condition
from vidgen_core.data.one_clip import OneClip
from vidgen_core.data.pixels import to_model_range
from vidgen_core.errors import BadRequest
from vidgen_core.inversion import inversion, reconstruction
from vidgen_core.noise import seed_of

if TYPE_CHECKING:
    from vidgen_core.run import Run, Window


class Inverted:
    """DDIM inversion of the source clip.

    Args:
        invert: ``empty``: without text, as published; ``prompt``: with the clip's caption; ``none``.
        caption: The clip's caption; None takes the first prompt of the tuning.
        steps: None takes as many as the sampling has.
        strength: Share of the way to noise, 0 to 1; an edit that starts earlier keeps more of the clip.
    """

    def __init__(self, invert: str, caption: str | None, steps: int | None, strength: float) -> None:
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
        scheduler = type(run.make_scheduler()).__name__
        if scheduler != "DDIMScheduler":
            raise BadRequest(
                f"Edits start from noise that was inverted by DDIM, and {scheduler} does not lead back from it. Use "
                "scheduler=ddim, or start afresh: invert=none."
            )
        clean = self.clean(run, window, clip)
        prompt = self.prompt(run) if self.with_caption else ""
        sampled = run.request.num_inference_steps
        steps = self.steps or sampled
        walked = max(round(self.strength * steps), 1)
        window.first_step = min(sampled - round(self.strength * sampled), sampled - 1)
        file = self.cache_file(run, condition, clean, prompt, (steps, walked))
        if file is not None and file.is_file():
            kept = load_file(file)
        else:
            noise = list(inversion(run, condition, clean, steps, prompt, walked))[-1]
            back = reconstruction(run, condition, noise, steps, prompt, walked)
            lost = (back.cpu() - clean.cpu()).square().mean().sqrt() / clean.cpu().square().mean().sqrt()
            kept = {"noise": noise.cpu().contiguous(), "error": lost}
            if file is not None:
                _write(kept, file)
        error = float(kept["error"])
        run.provenance["inversion"] = {
            "steps": walked,
            "of": steps,
            "prompt": prompt,
            "reconstruction_error": round(error, 4),
        }
        print(f"inverted in {walked} steps; sampling back without guidance is {error:.1%} off", file=sys.stderr)
        return kept["noise"].to(run.backbone.device).expand(len(run.request.videos), -1, -1, -1, -1)

    def clean(self, run: Run, window: Window, clip: OneClip) -> Tensor:
        """(1, C, F, h, w) scaled latents of the clip's frames in the window, drawn from the VAE's posterior.

        Its mean would not do: where a picture is flat, only that little noise grows into the noise of the inversion.
        """
        frames = clip.frames()
        if window.span.stop > len(frames):
            raise BadRequest(f"The clip has {len(frames)} frames; {window.span.stop} are to be made of it.")
        frames = frames[window.span.start : window.span.stop]
        moments = run.backbone.encode(to_model_range(frames.to(run.backbone.device)).float())
        mean, log_variance = moments.float().cpu().chunk(2, dim=1)
        generator = torch.Generator().manual_seed(seed_of("posterior", clip.content, window.span.start))
        drawn = torch.randn(mean.shape, generator=generator)  # the same for a clip, whatever the seed of the edit
        latents = mean + (0.5 * log_variance.clamp(-30, 20)).exp() * drawn
        return (latents * run.backbone.vae.config.scaling_factor).transpose(0, 1)[None]

    def prompt(self, run: Run) -> str:
        """The clip's caption; the empty text, with a warning, where nobody said it."""
        caption = self.caption or tuned_record(run).get("prompt")
        if isinstance(caption, list):
            caption = " ".join(caption)
        if not caption:
            run.warn("nobody said what the clip shows (caption='...'), so it is inverted without text.")
        return str(caption or "")

    def cache_file(
        self, run: Run, condition: Condition, clean: Tensor, prompt: str, steps: tuple[int, int]
    ) -> Path | None:
        """Where the inverted noise is kept: beside the tuned weights, named by all that it depends on."""
        tuned = Path(str(run.config["tuned"] or "")).expanduser()
        if run.config["tuned"] is None or not tuned.is_dir():
            return None
        digest = hashlib.sha256()
        for weights in sorted((tuned / "methods").glob("*.safetensors")):
            digest.update(weights.read_bytes())
        for tensor in (clean, *_tensors(condition)):
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        facts = [prompt, steps, str(run.backbone.dtype), run.backbone.weights, run.backbone.scheduler_config]
        digest.update(json.dumps([*facts, run.config["scheduler"]], sort_keys=True, default=str).encode())
        return tuned / "inverted" / f"{digest.hexdigest()[:24]}.safetensors"


def tuned_record(run: Run) -> dict[str, Any]:
    """The configuration that the tuned run was trained with; empty where it left none."""
    import yaml

    file = Path(str(run.config["tuned"] or "")).expanduser() / "run.yaml"
    return dict(yaml.safe_load(file.read_text()).get("config") or {}) if file.is_file() else {}


def _tensors(condition: Any) -> list[Tensor]:
    # What conditions the inversion beside its text, such as depth.
    found = []
    for name in sorted(condition):
        value = condition[name]
        if name != "text":
            found += [v for v in ((value.cond,) if isinstance(value, Branches) else (value,)) if isinstance(v, Tensor)]
    return found


def _write(tensors: dict[str, Tensor], file: Path) -> None:
    fresh = file.with_name(f".{file.name}")
    try:
        file.parent.mkdir(exist_ok=True)
        save_file(tensors, fresh)
        fresh.replace(file)
    except OSError:
        fresh.unlink(missing_ok=True)  # a cache that cannot be kept costs time, nothing else
