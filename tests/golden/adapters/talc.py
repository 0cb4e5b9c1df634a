"""Adapters of the TALC cases: drawn weights through the folder importer, the real hooks and the default sampler."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from vidgen_talc.method import build

from vidgen_core import hookimpl
from vidgen_core.conditioning import Branches, Condition, PerFrameText
from vidgen_core.data.frame_sampling import segment_indices
from vidgen_core.data.pixels import fit, to_model_range
from vidgen_core.data.sample import Batch, Draw, Sample
from vidgen_core.metrics.judge_answers import published_scores
from vidgen_core.metrics.judge_frames import published_indices
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.unet3d import load_denoiser
from vidgen_core.moments import Moments
from vidgen_core.placement import Placement
from vidgen_core.request import Request, VideoRequest, single_scene
from vidgen_core.run import CORE_HOOKS, Run, opened
from vidgen_core.sampling import denoiser
from vidgen_core.train import TRAINING_HOOKS
from vidgen_core.training.denoising import Denoising
from vidgen_core.training.learner import Learner, choose_trainables

Case = dict[str, Any]


def imported(case: Case, folder: Path) -> Backbone:
    """The case's weights, saved as a diffusers folder and read back as a user's checkpoint is."""
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet3DConditionModel", **case["config"]}))
    save_file(case["weights"], folder / "unet" / "diffusion_pytorch_model.safetensors")
    scheduler = case["scalars"].get("scheduler", {}).get("config")
    return load_denoiser(str(folder), scheduler_config=scheduler)


def unet_forward(case: Case, folder: Path) -> dict[str, Tensor]:
    """One call of the network; with negatives the first half of the batch is unconditional."""
    backbone, tensors = imported(case, folder), case["tensors"]
    sample, spans = tensors["sample"], case["scalars"]["frames_per_scene"]
    negatives = tensors.get("negative_embeds")
    embeds = torch.cat([tensors["scene_embeds"], *([negatives] if negatives is not None else [])])
    scenes = len(spans)

    def index(batch: int, rows: list[int]) -> Tensor:
        return torch.tensor([[row for row, span in zip(rows, spans, strict=True) for _ in range(span)]] * batch)

    positive = list(range(scenes))
    negative = [scenes + (i if negatives is not None and len(negatives) > 1 else 0) for i in range(scenes)]
    batch = len(sample) // (1 if negatives is None else 2)
    text = Branches(PerFrameText(embeds, index(batch, positive)), PerFrameText(embeds, index(batch, negative)))
    branches = ["cond"] if negatives is None else ["uncond", "cond"]
    with torch.inference_mode(), backbone.attention_installed("sdpa"):
        inputs = backbone.prepare(Condition(text=text), branches)
        return {"sample": backbone.predict(sample, torch.tensor(case["scalars"]["timestep"]), inputs)}


class Given:
    """Starts from the case's latents and keeps those of the traced steps."""

    def __init__(self, latents: Tensor, trace: list[int]) -> None:
        self.latents = latents
        self.trace = trace
        self.seen: dict[str, Tensor] = {}

    @hookimpl
    def start_latents(self) -> Tensor:
        return self.latents

    @hookimpl
    def on_step(self, step: Any, latents: Tensor) -> None:
        if step.index in self.trace:
            self.seen[f"latents_after_step_{step.index}"] = latents.clone()


def denoise(case: Case, folder: Path, talc: bool) -> dict[str, Tensor]:
    """The whole loop through hooks, guidance and the scheduler made from the checkpoint's configuration."""
    scalars, tensors = case["scalars"], case["tensors"]
    latents = tensors["latents"]
    positives = tensors["scene_embeds" if talc else "prompt_embeds"]
    negatives = tensors.get("negative_embeds")
    negatives = torch.zeros_like(positives[:1]) if negatives is None else negatives
    texts = [f"positive {i}" for i in range(len(positives))]
    unwanted = [f"negative {i}" for i in range(len(negatives))]
    if talc:
        videos = tuple(VideoRequest(tuple(texts), tuple(unwanted), index=b) for b in range(len(latents)))
    else:
        videos = tuple(
            VideoRequest((texts[b % len(texts)],), (unwanted[b % len(unwanted)],), index=b) for b in range(len(latents))
        )
    frames, height, width = latents.shape[2:]
    request = Request(
        videos,
        num_frames=frames,
        height=height * 8,
        width=width * 8,
        fps=8,
        seed=0,
        guidance_scale=scalars["guidance_scale"],
        num_inference_steps=scalars["num_inference_steps"],
    )
    given = Given(latents, scalars.get("trace_steps", []))
    methods = {"talc": build(scene_frames=scalars["frames_per_scene"])} if talc else {}
    moments = Moments({**methods, "given": given}, defaults=CORE_HOOKS)
    name = scalars["scheduler"]["class"]
    # The published solver ends at its last real sigma; today's default is zero.
    scheduler = {"name": name, "final_sigmas_type": "sigma_min" if name.startswith("DPM") else None}
    run = Run(
        single_scene(moments.prepare_request(request=request)), {"scheduler": scheduler, "placement": {}}, moments
    )
    with opened(run, imported(case, folder)):
        run.texts.put([*texts, *unwanted], torch.cat([positives, negatives]))
        (group,) = run.groups
        (window,) = moments.sample(run=run, group=group, denoise=denoiser(run))
        timesteps = run.timesteps(run.make_scheduler())
    assert window.latents is not None
    return {"latents": window.latents, "timesteps": timesteps, **given.seen}


def pixels(case: Case, folder: Path) -> dict[str, Tensor]:
    """The published cut of decoded frames, in the range that models see."""
    scalars = case["scalars"]
    frames = {name: (128 + 64 * value).round().clamp(0, 255).byte() for name, value in case["tensors"].items()}
    return {
        name: to_model_range(fit(clip, (scalars["height"], scalars["width"]), "center"))
        for name, clip in frames.items()
    }


class GivenStep(Denoising):
    """Trains on the case's latents with the case's noise."""

    def __init__(self, latents: Tensor, noise: Tensor) -> None:
        super().__init__()
        self.given = latents, noise

    def latents(self, run: Run, batch: Batch) -> Tensor:
        return self.given[0]

    def noise(self, batch: Batch, latents: Tensor) -> Tensor:
        return self.given[1]


def train_step(case: Case, folder: Path) -> dict[str, Tensor]:
    """One step of the training loop's own module, without the optimiser."""
    scalars, tensors = case["scalars"], case["tensors"]
    spans, embeds = scalars["frames_per_scene"], tensors["scene_embeds"]
    captions = tuple(f"scene {i}" for i in range(len(spans)))
    backbone = imported(case, folder).eval()
    texts = dict(zip(captions, embeds, strict=True)) | {"": torch.zeros_like(embeds[0])}
    backbone.encode_text = lambda wanted: torch.stack([texts[text] for text in wanted])  # type: ignore[method-assign]
    step = GivenStep(tensors["latents"], tensors["noise"])
    moments = Moments({"talc": build(), "objective": step}, defaults=TRAINING_HOOKS)
    frames, height, width = tensors["latents"].shape[2:]
    request = Request((), frames, height * 8, width * 8, fps=8, seed=0, guidance_scale=1.0, num_inference_steps=1)
    run = Run(request, {"trainer": {"trainable": "all"}}, moments)
    run.place(backbone, Placement(torch.device("cpu"), torch.float32))
    samples = [Sample(captions, tuple(spans), number=b) for b in range(len(tensors["latents"]))]
    batch = Batch(samples, Draw((0,), 0, 0, 0, 0.0, 0), timestep=scalars["timestep"])
    with backbone.attention_installed("sdpa"), moments.attach(run=run, backbone=backbone):
        learner = Learner(run, choose_trainables(run)).eval()
        seen: dict[str, Any] = {}
        whole = moments.training_step
        moments.training_step = lambda **named: seen.setdefault("prediction", whole(**named))
        loss = sum(learner(batch).values())
        loss.backward()
    gradients = {name.removeprefix("denoiser."): p.grad for name, p in learner.trainables.items()}
    return {
        "noisy_latents": seen["prediction"].noisy,
        "model_pred": seen["prediction"].output.detach(),
        "loss": loss.detach(),
        "grad_norm": torch.stack([g.norm() for g in gradients.values()]).norm(),
        **{f"grad.{name}": gradients[name] for name in scalars["gradients_of"]},
    }


def tables(case: Case, folder: Path) -> dict[str, Tensor]:
    """Which frames are sampled and shown, and how a judge's answers are read; no network takes part."""
    scalars = case["scalars"]
    found = {
        f"frame_indices_{total}_{count}": torch.tensor(segment_indices(total, count))
        for total, count in scalars.get("frame_sampling", ())
    }
    for frames, scenes in scalars.get("eval_sampling", ()):
        found[f"eval_indices_{frames}_{scenes}"] = torch.tensor(published_indices(frames, scenes))
    for i, text in enumerate(scalars.get("judge_outputs", ())):
        found[f"judge_scores_{i}"] = torch.tensor(published_scores(text) or (torch.nan,) * 3)
    return found


ADAPTERS: dict[str, Callable[[Case, Path], dict[str, Tensor]]] = {
    "unet_forward": unet_forward,
    "denoise_talc": lambda case, folder: denoise(case, folder, talc=True),
    "train_step": train_step,
    "denoise_plain": lambda case, folder: denoise(case, folder, talc=False),
    "pixels": pixels,
    "tables": tables,
}
