"""Adapters of the TF-T2V cases: drawn weights through the importer, the method's own hooks and the default sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from vidgen_tf_t2v.coherence import REDUCTIONS, temporal_coherence
from vidgen_tf_t2v.ddim import COMMON, inverted
from vidgen_tf_t2v.maps import CHANNELS
from vidgen_tf_t2v.method import TFT2V
from vidgen_tf_t2v.published import read_unet

from vidgen_core import hookimpl, testing
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.tuned import read_tensors
from vidgen_core.moments import Moments
from vidgen_core.request import Request, VideoRequest, single_scene
from vidgen_core.run import CORE_HOOKS, Group, Run, Window, opened
from vidgen_core.sampling import denoiser, make_scheduler
from vidgen_core.training.denoising import Denoising, denoised

Case = dict[str, Any]
Inputs = Mapping[str, Tensor]


def imported(case: Case, folder: Path, diffusion: Mapping[str, Any] | None = None) -> Backbone:
    """The case's weights as the published file, read as a user's checkpoint is."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "checkpoint.pth"
    torch.save({"state_dict": case["weights"], "step": 0}, file)
    unet = read_unet(read_tensors(file)[0], str(file), torch.float32, case["config"]["unet"].get("head_dim"))
    return Backbone(unet, scheduler_config=scheduler(diffusion or {}))


def scheduler(diffusion: Mapping[str, Any]) -> dict[str, Any]:
    """The scheduler that the published diffusion's arguments stand for."""
    given = diffusion.get("schedule_param", {})
    kinds = {"v": "v_prediction", "eps": "epsilon", "x0": "sample"}
    config = COMMON | {
        "num_train_timesteps": given.get("num_timesteps", 1000),
        "prediction_type": kinds[diffusion.get("mean_type", "eps")],
        "rescale_betas_zero_snr": given.get("zero_terminal_snr", False),
    }
    if diffusion.get("schedule") == "cosine":
        return config | {"beta_schedule": "squaredcos_cap_v2"}
    betas = {"beta_start": given.get("init_beta", 0.00085), "beta_end": given.get("last_beta", 0.012)}
    return config | {"beta_schedule": "scaled_linear", **betas}


class Given(TFT2V):
    """The method with the case's image embeddings and maps in the place of files."""

    def __init__(self, inputs: Inputs, **options: Any) -> None:
        super().__init__(**options)
        self.inputs = inputs

    def look(self, run: Run, backbone: Backbone) -> None:
        self.embedding = self.inputs["image"][:, 0] if "image" in self.inputs else None

    def maps_of(self, run: Run, window: Window) -> dict[str, Tensor]:
        maps = {name: given for name, given in self.inputs.items() if name in CHANNELS}
        if "histogram" in maps:
            maps["histogram"] = maps["histogram"].transpose(1, 2)[..., None, None]
        return maps


class GivenStart:
    """Starts from the case's latents and keeps those of every step."""

    def __init__(self, latents: Tensor) -> None:
        self.latents = latents
        self.steps: list[Tensor] = []

    @hookimpl
    def start_latents(self) -> Tensor:
        return self.latents

    @hookimpl
    def on_step(self, latents: Tensor) -> None:
        self.steps.append(latents.clone())


@contextmanager
def open_run(
    backbone: Backbone, latents: Tensor, inputs: Inputs, options: Mapping[str, Any], **request: Any
) -> Iterator[tuple[Run, Window, GivenStart]]:
    """A run of the method on the case's latents, under its ``y`` and, without guidance or text, its ``negative``."""
    negative = inputs.get("negative")
    rows = inputs.get("y", negative)
    assert rows is not None
    negative = torch.zeros_like(rows[:1]) if negative is None else negative
    prompts = [f"text {i}" for i in range(len(rows))]
    unwanted = [f"negative {i}" for i in range(len(negative))]
    videos = tuple(
        VideoRequest((prompts[b % len(prompts)],), (unwanted[b % len(unwanted)],), index=b) for b in range(len(latents))
    )
    asked = {"guidance_scale": 1.0, "num_inference_steps": 1, **request}
    frames, height, width = latents.shape[2:]
    wanted = Request(videos, frames, height * 8, width * 8, fps=8, seed=0, **asked)
    text = "prompt" if "y" in inputs else "negative"
    given = GivenStart(latents)
    methods = {"tf_t2v": Given(inputs, text=text, **options), "given": given}
    config = {"scheduler": {}, "placement": {}, "tuned": None, "weights": {}, "model": {}}
    run = Run(single_scene(wanted), config, Moments(methods, defaults=CORE_HOOKS))
    with opened(run, backbone):
        run.texts.put([*prompts, *unwanted], torch.cat([rows, negative]))
        yield run, Window(range(frames), range(frames)), given


def predicted(backbone: Backbone, latents: Tensor, t: Tensor, inputs: Inputs, **options: Any) -> tuple[Tensor, Window]:
    """One call of the network under the method's condition, and the window that holds it."""
    with open_run(backbone, latents, inputs, options) as (run, window, _):
        run.conditioned(window)
        return backbone.predict(latents, t, backbone.prepare(window.condition, ("cond",))), window


def unet_forward(case: Case, folder: Path) -> dict[str, Tensor]:
    """Text, image, both or neither; on one frame too, and through the spatial layers only."""
    backbone, t = imported(case, folder), torch.tensor(case["scalars"]["t"])
    found = {}
    for name in case["expected"]:
        inputs = {"negative": case["tensors"]["zero_y"]}
        options: dict[str, Any] = {"branch": "motion"}
        if name.startswith("text"):
            inputs["y"] = case["tensors"]["y"]
        if name.startswith(("image", "text_image")) and not name.endswith("zero"):
            inputs["image"] = case["tensors"]["image"]
        if name.endswith("zero"):
            options["no_image"] = "zero_embedding"
        if "spatial_only" in name:
            options |= {"branch": "content", "keep_last": True}
        one = name.endswith(("1frame", "spatial_only"))
        found[name] = predicted(backbone, case["tensors"]["x1" if one else "x"], t, inputs, **options)[0]
    return found


def unet_vcomposer(case: Case, folder: Path) -> dict[str, Tensor]:
    """Composed conditions, and what their encoders make of them."""
    backbone, t, x = imported(case, folder), torch.tensor(case["scalars"]["t"]), case["tensors"]["x"]
    found = {}
    for name, combination in case["scalars"]["combos"].items():
        pairs = [part.split(":") for part in combination]
        inputs = {pair[0]: case["tensors"][pair[-1]] for pair in pairs}
        found[name], window = predicted(backbone, x, t, inputs, branch="motion")
        channels = case["expected"][f"concat_{name}"].shape[1]
        nothing = x.new_zeros(len(x), channels, *x.shape[2:])
        found[f"concat_{name}"] = window.condition.get("spatial", nothing)
    return found


def unet_modelscope(case: Case, folder: Path) -> dict[str, Tensor]:
    """The plain network in the same layout; the method changes nothing of it."""
    from vidgen_core.conditioning import Condition, PerFrameText

    backbone, t, y = imported(case, folder), torch.tensor(case["scalars"]["t"]), case["tensors"]["y"]
    found = {}
    with torch.inference_mode(), backbone.attention_installed("sdpa"):
        for name, x in (("video", case["tensors"]["x"]), ("image", case["tensors"]["x1"])):
            text = PerFrameText(y, torch.arange(len(x))[:, None].expand(-1, x.shape[2]))
            found[name] = backbone.predict(x, t, backbone.prepare(Condition(text=text), ("cond",)))
    return found


def ddim_guided(case: Case, folder: Path) -> dict[str, Tensor]:
    """Whole loops through hooks, guidance and schedulers, their timesteps and noise levels; and inversions."""
    scalars, tensors = case["scalars"], case["tensors"]
    found: dict[str, Tensor] = {}
    for count in scalars.get("step_counts", ()):
        run = testing.make_run(testing.request(num_inference_steps=count))
        run.backbone = SimpleNamespace(sampling_config=scheduler({}), device=torch.device("cpu"))  # type: ignore[assignment]
        found[f"steps_{count}"] = visited(run)
    for name, diffusion in case["config"]["diffusion"].items():
        found[f"alphas_cumprod_{name}"] = make_scheduler(scheduler(diffusion)).alphas_cumprod.double()
    for name, wanted in scalars["runs"].items():
        backbone = imported(case, folder, case["config"]["diffusion"][wanted["diffusion"]])
        guided, *unguided = [{key: tensors[value] for key, value in k.items()} for k in wanted["model_kwargs"]]
        inputs = guided | ({"negative": unguided[0]["y"]} if unguided and "y" in unguided[0] else {})
        same = bool(unguided) and "image" in unguided[0]
        request = {"guidance_scale": wanted["guide_scale"] or 1.0, "num_inference_steps": wanted["ddim_timesteps"]}
        options = {"branch": "motion", "unguided_image": "same" if same else "omit"}
        with open_run(backbone, tensors["noise"], inputs, options, **request) as (run, window, given):
            if wanted["mode"] == "reverse":
                run.prepare(window)
                *_, found[name] = inverted(run, window, tensors["noise"])
                continue
            found[f"{name}_timesteps"] = visited(run)
            (done,) = run.moments.sample(run=run, group=Group((window,)), denoise=denoiser(run))
            assert done.latents is not None
            found[name] = done.latents
            found |= dict(zip((f"{name}_after_first", f"{name}_after_second"), given.steps, strict=False))
    return found


def visited(run: Run) -> Tensor:
    """The timesteps of the release, which the run then visits: its own where their number divides the 1000 of training.

    Elsewhere the release takes one in every ``1000 // steps`` of the whole range, which are more than it was asked for.
    """
    ordinary, steps = run.timesteps, run.request.num_inference_steps

    def timesteps(scheduler: Any) -> Tensor:
        own = ordinary(scheduler)
        trained = scheduler.config.num_train_timesteps
        if trained % steps == 0:
            return own
        return (1 + torch.arange(0, trained, trained // steps)).clamp(max=trained - 1).flip(0)

    run.timesteps = timesteps  # type: ignore[method-assign]
    return run.timesteps(run.make_scheduler())


def train_loss(case: Case, folder: Path) -> dict[str, Tensor]:
    """Noised latents, targets and losses of every kind of training, one loss for each sample."""
    scalars, tensors = case["scalars"], case["tensors"]
    t, weight = torch.tensor(scalars["t"]), torch.tensor(scalars.get("weight", 1.0))
    found = {}
    for setting, diffusion in case["config"]["diffusion"].items():
        backbone = imported(case, folder, diffusion)
        for name, named in scalars["conditions"].items():
            suffix = "" if name.endswith("video") else "_image"
            x0, noise = tensors[f"x0{suffix}"], tensors[f"noise{suffix}"]
            inputs = {key: tensors[value] for key, value in named.items()}
            objective = Denoising()
            with open_run(backbone, x0, inputs, {"branch": "motion"}) as (run, window, _):
                schedule = objective.noise_schedule(run)
                made = denoised(run, run.conditioned(window), schedule, x0, noise, t)
            losses = [
                objective.losses(run, None, replace(made, output=made.output[b : b + 1], target=made.target[b : b + 1]))
                for b in range(len(x0))
            ]
            found[f"loss_{setting}_{name}"] = weight * torch.stack([loss["denoising"] for loss in losses])
            if not suffix:
                found |= {f"xt_{setting}": made.noisy, f"target_{setting}": made.target}
    return found


def coherence_loss(case: Case, folder: Path) -> dict[str, Tensor]:
    """Both losses by themselves and as a training adds them, for each sample."""
    method = TFT2V(coherence_weight=case["scalars"]["weight"])
    found = {}
    for pair in case["scalars"]["pairs"]:
        output, target = case["tensors"][f"pred_{pair}"], case["tensors"][f"target_{pair}"]
        frames: Any = SimpleNamespace(num_frames=output.shape[2])
        diffusion, total = [], []
        for b in range(len(output)):
            one = SimpleNamespace(output=output[b : b + 1], target=target[b : b + 1])
            run: Any = None
            diffusion.append(Denoising().losses(run, frames, one)["denoising"])
            total.append(diffusion[-1] + sum(method.losses(run, frames, one).values()))
        found |= {f"diffusion_{pair}": torch.stack(diffusion), f"total_{pair}": torch.stack(total)}
        for reduction, name in zip(REDUCTIONS, ("coherence", "coherence_framesum"), strict=True):
            found[f"{name}_{pair}"] = temporal_coherence(output, target, reduction)
    return found


ADAPTERS: dict[str, Callable[[Case, Path], dict[str, Tensor]]] = {
    "unet_forward": unet_forward,
    "unet_vcomposer": unet_vcomposer,
    "unet_modelscope": unet_modelscope,
    "ddim_guided": ddim_guided,
    "train_loss": train_loss,
    "coherence_loss": coherence_loss,
}
