"""Adapters of the Tune-A-Video cases: drawn weights in the published layout, through the method's own hooks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from golden_cases import DEFAULT, ROOT
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from vidgen_tune_a_video.method import TuneAVideo, build
from vidgen_tune_a_video.published import from_published

from vidgen_core import hookimpl
from vidgen_core.conditioning import Condition, PerFrameText
from vidgen_core.data.one_clip import OneClip
from vidgen_core.data.pixels import to_model_range
from vidgen_core.data.sample import Batch, Draw, Sample
from vidgen_core.inversion import inversion
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_core.moments import Moments
from vidgen_core.placement import Placement
from vidgen_core.request import Request, VideoRequest, single_scene
from vidgen_core.run import Group, Run, Window
from vidgen_core.sampling import denoiser
from vidgen_core.train import TRAINING_HOOKS
from vidgen_core.training.denoising import Denoising
from vidgen_core.training.learner import Learner, choose_trainables
from vidgen_core.training.optimiser import make_optimiser

Case = dict[str, Any]


class Given:
    """Starts from the case's latents and keeps those after every step."""

    def __init__(self, latents: Tensor) -> None:
        self.latents = latents
        self.steps: list[Tensor] = []

    @hookimpl
    def start_latents(self) -> Tensor:
        return self.latents

    @hookimpl
    def on_step(self, latents: Tensor) -> None:
        self.steps.append(latents.clone())


def imported(case: Case, folder: Path, method: TuneAVideo) -> ImageBackbone:
    """The case's weights, saved as the published program saves them and read by the importer of a user's folder."""
    scheduler = case["scalars"].get("scheduler") or case["scalars"].get("noise_scheduler") or {}
    (folder / "unet").mkdir(parents=True)
    (folder / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet3DConditionModel", **case["config"]}))
    save_file(case["weights"], folder / "unet" / "diffusion_pytorch_model.safetensors")
    backbone = method.open_denoiser(str(folder), torch.float32)
    backbone.scheduler_config = {"_class_name": "DDIMScheduler", **scheduler}
    return backbone


@contextmanager
def inflated(
    case: Case,
    folder: Path,
    method: TuneAVideo,
    videos: int,
    others: dict[str, object] | None = None,
    request: dict[str, Any] | None = None,
) -> Iterator[Run]:
    """A run whose model is inflated by the method's own ``attach``; texts are the case's embeddings."""
    sample = case["tensors"].get("sample", case["tensors"].get("latents"))
    frames, height, width = sample.shape[2:]
    asked = {"guidance_scale": 1.0, "num_inference_steps": 1, **(request or {})}
    wanted = Request(
        tuple(VideoRequest((f"text {b}",), index=b) for b in range(videos)),
        frames,
        height * 8,
        width * 8,
        fps=8,
        seed=0,
        video="the case's clip",
        **asked,
    )
    moments = Moments(
        {method.name: method, **(others or {})}, {"start_latents": "given"} if others else {}, TRAINING_HOOKS
    )
    config = {"tuned": None, "model": {"path": str(folder)}, "scheduler": {"name": "DDIMScheduler"}, "trainer": {}}
    run = Run(single_scene(wanted), config, moments)
    backbone = imported(case, folder, method)
    run.place(backbone, Placement(torch.device("cpu"), torch.float32, guidance="batched"))
    with backbone.attention_installed("sdpa"), moments.attach(run=run, backbone=backbone):
        backbone.verify_attention()
        # Training asks the encoder; sampling finds the texts in the table.
        texts = embeddings(case)
        backbone.encode_text = lambda wanted: torch.stack([texts[text] for text in wanted])  # type: ignore[method-assign]
        run.texts.put(list(texts), torch.stack(list(texts.values())))
        yield run


def embeddings(case: Case) -> dict[str, Tensor]:
    """The case's embeddings by what was written: ``text <video>`` and the empty text."""
    text, empty = case["tensors"].get("text"), case["tensors"].get("text_empty")
    found = {} if text is None else {f"text {video}": row for video, row in enumerate(text)}
    found[""] = empty[0] if empty is not None else torch.zeros_like(next(iter(found.values())))
    return found


def unet_forward(case: Case, folder: Path) -> dict[str, Tensor]:
    """Calls of the network, and what the named submodules answer in the first."""
    found: dict[str, Tensor] = {}
    with inflated(case, folder, build(), 1) as run, torch.inference_mode():
        network = run.backbone.denoiser
        for number, call in enumerate(case["scalars"]["forwards"]):
            sample, text = case["tensors"][call["sample"]], case["tensors"][call["text"]]
            index = torch.arange(len(sample)).remainder(len(text))[:, None].expand(-1, sample.shape[2])
            inputs = run.backbone.prepare(Condition(text=PerFrameText(text, index)), ("cond",))
            hooks = [
                watched(network, name, sample.shape, found) for name in call.get("intermediates", ()) if not number
            ]
            out = run.backbone.predict(sample, torch.as_tensor(call["timestep"]), inputs)
            for hook in hooks:
                hook.remove()
            found[call["sample"]] = out  # named as what it is made of
    return found


def watched(network: Any, name: str, shape: Any, found: dict[str, Tensor]) -> Any:
    """Keep what a submodule answers, in the published layout: (b c f h w) where it is a feature map."""
    (ours,) = from_published({f"{name}.": torch.zeros(0)})

    def keep(module: Any, arguments: Any, output: Any) -> None:
        output = output[0] if isinstance(output, tuple) else output
        if output.ndim == 4:
            output = output.unflatten(0, (shape[0], shape[2])).transpose(1, 2)
        found[f"intermediate.{name}"] = output.clone()

    return network.get_submodule(ours.rstrip(".")).register_forward_hook(keep)


def ddim_inversion(case: Case, folder: Path) -> dict[str, Tensor]:
    """The whole trajectory from clean latents to noise."""
    latents, steps = case["tensors"]["latents"], case["scalars"]["num_inv_steps"]
    with inflated(case, folder, build(), len(latents), request={"num_inference_steps": steps}) as run:
        trajectory = [latents, *inversion(run, Condition(), latents, steps, case["scalars"]["prompt"])]
        timesteps = run.timesteps(run.make_scheduler())
    return {"trajectory": torch.stack(trajectory), "timesteps": timesteps}


def sampling(case: Case, folder: Path) -> dict[str, Tensor]:
    """The guided sampling loop from given noise, once for each guidance scale."""
    scalars, latents = case["scalars"], case["tensors"]["latents"]
    found: dict[str, Tensor] = {}
    for scale in scalars["guidance_scales"]:
        given = Given(latents)
        request = {"guidance_scale": scale, "num_inference_steps": scalars["num_inference_steps"]}
        with inflated(case, folder / str(scale), build(), len(latents), {"given": given}, request) as run:
            window = Window(range(latents.shape[2]), range(latents.shape[2]))
            (done,) = run.moments.sample(run=run, group=Group((window,)), denoise=denoiser(run))
            found["timesteps"] = run.timesteps(run.make_scheduler())
        assert done.latents is given.steps[-1] or torch.equal(done.latents, given.steps[-1])
        found[f"g{scale}.steps"] = torch.stack(given.steps)
    return found


class GivenStep(Denoising):
    """Trains on the case's latents with the case's noise and timesteps."""

    def __init__(self, latents: Tensor, noise: Tensor, timesteps: list[int]) -> None:
        super().__init__()
        self.given = latents, noise, torch.tensor(timesteps)

    def latents(self, run: Run, batch: Batch) -> Tensor:
        return self.given[0]

    def noise(self, batch: Batch, latents: Tensor) -> Tensor:
        return self.given[1]

    def timesteps(self, batch: Batch, count: int) -> Tensor:
        return self.given[2]


def train_step(case: Case, folder: Path) -> dict[str, Tensor]:
    """A few steps of what the training loop does, with its own optimiser."""
    scalars, tensors = case["scalars"], case["tensors"]
    latents = tensors["latents"]
    objective = GivenStep(latents, tensors["noise"], scalars["timesteps"])
    with inflated(case, folder, build(), len(latents)) as run:
        run.moments = Moments({"tune_a_video": build(), "objective": objective}, defaults=TRAINING_HOOKS)
        run.config["trainer"]["trainable"] = "all"
        learner = Learner(run, choose_trainables(run)).eval()
        options = {"optimizer": "adamw", "learning_rate": scalars["learning_rate"], "rate_scale": {}}
        options |= {"betas": [0.9, 0.999], "epsilon": 1e-8, "weight_decay": 1e-2}
        optimiser = make_optimiser(learner.trainables, options)
        ours = {name: f"denoiser.{next(iter(from_published({name: latents})))}" for name in case["trainable"]}
        before = {name: p.detach().clone() for name, p in learner.trainables.items()}
        assert set(ours.values()) == set(learner.trainables)
        batch = batch_of(case)
        found: dict[str, Tensor] = {}
        seen: dict[str, Any] = {}
        whole = run.moments.training_step
        run.moments.training_step = lambda **named: seen.setdefault("prediction", whole(**named))
        for step in range(scalars["num_steps"]):
            seen.clear()
            loss = sum(learner(batch).values())
            loss.backward()
            if step == 0:
                prediction = seen["prediction"]
                found |= {"noisy_latents": prediction.noisy, "target": prediction.target}
                found["model_pred"] = prediction.output.detach()
                gradients = {name: learner.trainables[own].grad.clone() for name, own in ours.items()}
                found["grad_norms"] = torch.stack([gradient.norm() for gradient in gradients.values()])
                found |= {f"grad.{name}": gradients[name] for name in scalars["store_grads"]}
            norm = clip_grad_norm_(list(learner.trainables.values()), scalars["max_grad_norm"])
            found |= {f"loss.{step}": loss.detach().view(1), f"total_grad_norm.{step}": norm.view(1)}
            optimiser.step()
            optimiser.zero_grad()
        moved = {name: (learner.trainables[own] - before[own]).detach() for name, own in ours.items()}
        found |= {f"param_delta.{name}": moved[name] for name in scalars["store_params"]}
    return found


def batch_of(case: Case) -> Batch:
    """A sample for each video of the case, captioned by its own text, or by the last there is."""
    latents, texts = case["tensors"]["latents"], len(case["tensors"]["text"])
    captions = [f"text {min(b, texts - 1)}" for b in range(len(latents))]
    samples = [Sample((caption,), (latents.shape[2],), number=b) for b, caption in enumerate(captions)]
    return Batch(samples, Draw(tuple(range(len(samples))), 0, 0, 0, 0.0, 0))


def dataset(case: Case, folder: Path) -> dict[str, Tensor]:
    """The frames of a real clip as the tuning sees them."""
    s = case["scalars"]
    shared = ROOT.parent if (ROOT.parent / s["video"]).is_file() else DEFAULT.parent
    path = shared / s["video"]
    size = (s["height"], s["width"])
    start, stride = s["sample_start_idx"], s["sample_frame_rate"]
    clip = OneClip(path, [""], s["n_sample_frames"], size, start, stride, parity=True)
    return {"pixel_values": to_model_range(clip.frames())}


ADAPTERS: dict[str, Callable[[Case, Path], dict[str, Tensor]]] = {
    "unet_forward": unet_forward,
    "ddim_inversion": ddim_inversion,
    "sampling": sampling,
    "train_step": train_step,
    "dataset": dataset,
}
