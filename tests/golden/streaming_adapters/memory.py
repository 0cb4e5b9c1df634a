"""Adapters of the cases of both memories: drawn weights through the importer, the real hooks and the sampler."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import UNet3DConditionModel
from diffusers.models.attention_processor import Attention
from safetensors.torch import save_file
from torch import Tensor
from vidgen_streaming.apm import Resampler
from vidgen_streaming.cam import Features, empty_encoder
from vidgen_streaming.method import Streaming, build
from vidgen_streaming.networks import loaded
from vidgen_streaming.published import read, sorted_parts

from vidgen_core import hookimpl
from vidgen_core.attention import TextCrossAttention, _sdpa
from vidgen_core.conditioning import Condition, PerFrameText
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.unet3d import load_denoiser
from vidgen_core.moments import Moments
from vidgen_core.request import Request, VideoRequest, single_scene
from vidgen_core.run import CORE_HOOKS, Run, frames, opened
from vidgen_core.sampling import denoiser

Case = dict[str, Any]
TEXT = 77


def checkpoint(case: Case, folder: Path) -> Path:
    """The case's weights as the published file."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": case["weights"]}, folder / "streaming_t2v.ckpt")
    return folder / "streaming_t2v.ckpt"


def imported(case: Case, folder: Path) -> tuple[Backbone, Path]:
    """A folder with a U-Net of the case's configuration, other weights in it, and the published file beside it."""
    file = checkpoint(case, folder)
    config = {"_class_name": "UNet3DConditionModel", **case["config"]["unet"]}
    (folder / "unet").mkdir()
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    save_file(
        UNet3DConditionModel.from_config(config).state_dict(), folder / "unet/diffusion_pytorch_model.safetensors"
    )
    scheduler = {"_class_name": "DDIMScheduler", **case["config"].get("scheduler", {})}
    return load_denoiser(str(folder), scheduler_config=scheduler), file


def split(context: Tensor, per_video: int) -> PerFrameText:
    """Text and image tokens of a context (B, L + T, D), every row for all frames of its own video."""
    index = torch.arange(len(context))[:, None].repeat(1, per_video)
    tokens = {"streaming": context[:, TEXT:]} if context.shape[1] > TEXT else {}
    return PerFrameText(context[:, :TEXT], index, tokens)


def cam_forward(case: Case, folder: Path) -> dict[str, Tensor]:
    """The encoder's copy on the noisy first frames."""
    backbone, file = imported(case, folder)
    tensors, known = case["tensors"], case["config"]["num_control_input_frames"]
    cam = loaded(read(file)[0].own, backbone.denoiser, str(file)).cam
    assert cam is not None
    with torch.inference_mode(), backbone.attention_installed("sdpa"), backbone.readied(cam) as text:
        context = split(tensors["encoder_hidden_states"], tensors["sample"].shape[2])
        text.use(text.gathered([context.part(slice(known)).without("streaming")], backbone.device, backbone.dtype))
        embedded = cam.controlnet_cond_embedding(tensors["frames"])
        placeholder = torch.zeros(len(context.embeds), 1, context.embeds.shape[-1])
        t = torch.tensor(case["scalars"]["timestep"])
        found = cam(tensors["sample"][:, :, :known], t, embedded, placeholder)
    skips = {f"down_{i}": skip for i, skip in enumerate(found.skips)}
    return {**skips, "mid": found.mid, "cond_embedding": embedded.flatten(0, 1)}


def base_unet_merge(case: Case, folder: Path) -> dict[str, Tensor]:
    """The U-Net with the mergers and the mixes, where the method puts them, given what CAM found."""
    config, tensors = case["config"], case["tensors"]
    known = config["num_control_input_frames"]
    # The checkpoint has more parts, which find what the case gives: features, and tokens.
    with torch.device("meta"):
        cam = empty_encoder(UNet3DConditionModel.from_config(config["unet"]), (8, 8, 8, 8))
        resampler = Resampler(8, 8, *tensors["image_tokens"].shape[1:])
    shapes = {f"unet.{name}": tensor.shape for name, tensor in cam.state_dict().items()}
    shapes |= {f"resampler.context_embedding.{name}": w.shape for name, w in resampler.state_dict().items()}
    weights = case["weights"] | {name: torch.zeros(shape) for name, shape in shapes.items()}
    method = build(chunk=config["num_frames"], overlap=known, first_chunk="tuned")
    assert isinstance(method, Streaming)
    method.anchor_encoder = lambda *_: lambda images: images  # type: ignore[method-assign]
    request = Request((VideoRequest(("any text",)),), config["num_frames"], 64, 64, 8, 0, 1.0, 1)
    run, backbone = run_of({**case, "weights": weights}, folder, {"streaming": method}, request)
    skips = [tensors[f"down_{i}"] for i in range(sum(name.startswith("down_") for name in tensors))]
    with opened(run, backbone):
        assert method.networks.cam is not None
        method.networks.cam.forward = lambda *_: Features(tuple(skips), tensors["mid"])  # type: ignore[method-assign]
        context = split(torch.cat([tensors["text"], tensors["image_tokens"]], dim=1), config["num_frames"])
        inputs = backbone.prepare(Condition(text=context, cam=torch.zeros(1, known)), ("cond",))
        out = backbone.predict(tensors["sample"], torch.tensor(case["scalars"]["timestep"]), inputs)
    return {"noise_pred": out}


def merger(case: Case, folder: Path) -> dict[str, Tensor]:
    """One merger: that of the mid block of a U-Net with a single skip."""
    skip, residual = case["tensors"]["skip"], case["tensors"]["residual"]
    places = ("down_blocks.0", "mid_block")
    parts = sorted_parts(
        {
            name.replace("merger.", f"base_model.cross_attention_merger_{place}."): weight
            for name, weight in case["weights"].items()
            for place in places
        }
    )
    widths = SimpleNamespace(block_out_channels=[case["config"]["channels"]], norm_num_groups=32)
    mergers = loaded(parts.own, SimpleNamespace(config=widths, down_blocks=[]), "the case").mergers
    assert mergers is not None
    with torch.inference_mode():
        out = mergers.mid(skip.flatten(0, 1), residual.flatten(0, 1), len(skip), _sdpa)
    return {"out": out.unflatten(0, skip.shape[:2])}


def apm(case: Case, folder: Path) -> dict[str, Tensor]:
    """Resampler, mix and cross-attention of one layer."""
    tensors, scalars = case["tensors"], case["scalars"]
    layer = "base_model.up_blocks.0.attn2."
    parts = sorted_parts({name.replace("block.attn2.", layer): weight for name, weight in case["weights"].items()})
    attention = Attention(**case["config"]["attention"])
    attention.load_state_dict({name.removeprefix("up_blocks.0.attn2."): w for name, w in parts.base.items()})
    width = SimpleNamespace(cross_attention_dim=case["config"]["resampler"]["cross_attention_dim"])
    networks = loaded(parts.own, SimpleNamespace(config=width), "the case")
    assert networks.resampler is not None
    processor = TextCrossAttention("sdpa", _sdpa)
    processor.mixes["streaming"] = networks.mixes[0]
    with torch.inference_mode():
        embedding = tensors["image_embedding"].unflatten(0, (scalars["batch"], -1)).mean(1)
        tokens = networks.resampler(embedding)
        context = networks.mixes[0](tensors["text"], tokens)
        key, value = processor.project(attention, tensors["text"], {"streaming": tokens})
        rows = torch.arange(scalars["batch"]).repeat_interleave(scalars["num_frames"])
        processor.set_text(key[rows], value[rows])
        out = processor(attention, tensors["hidden_states"])
    return {"image_tokens": tokens, "mixed_context": context[:, ::11], "attention_out": out}


class Given:
    """Draws what the case drew: the noise of the start and of every step; keeps what a step left."""

    def __init__(self, start: list[Tensor], steps: list[Tensor]) -> None:
        self.start, self.steps = start, steps
        self.seen: dict[str, Tensor] = {}
        self.first_generated = 0

    @hookimpl
    def start_latents(self, window: Any) -> Tensor:
        return self.start[window.index - self.first_generated]

    @hookimpl
    def on_step(self, step: Any, latents: Tensor) -> None:
        if step.index == 0:
            self.seen["latents_after_step_0"] = latents.clone()

    def noise(self, window: Any, step: int = -1) -> Tensor:
        """(1, C, F, h, w) of the frame-major noise (F, C, h, w) of a step."""
        return self.steps[window.index - self.first_generated][step].transpose(0, 1)[None]


def run_of(case: Case, folder: Path, methods: dict[str, object], request: Request) -> tuple[Run, Backbone]:
    """A run on the case's weights, which come as the published file."""
    backbone, file = imported(case, folder)
    moments = Moments(methods, defaults=CORE_HOOKS)
    config = {
        "scheduler": {"name": "DDIMScheduler", "eta": case["scalars"].get("eta", 0.0)},
        "placement": {},
        "tuned": None,
        "weights": {"streaming": str(file)},
        "model": {},
    }
    return Run(single_scene(moments.prepare_request(request=request)), config, moments), backbone


def opened_run(case: Case, folder: Path, method: Streaming, given: Given, num_frames: int) -> Any:
    """A run of the whole method on the case's weights, whose texts are those of the case."""
    scalars, tensors = case["scalars"], case["tensors"]
    request = Request(
        (VideoRequest(("guided",), ("unguided",)),),
        num_frames=num_frames,
        height=scalars["height"],
        width=scalars["width"],
        fps=8,
        seed=0,
        guidance_scale=scalars["guidance_scale"],
        num_inference_steps=scalars["num_inference_steps"],
    )
    run, backbone = run_of(case, folder, {"streaming": method, "given": given}, request)
    run.noise = given.noise  # type: ignore[method-assign]
    texts = {"guided": tensors["text"][0], "unguided": tensors["text_uncond"][0]}
    backbone.encode_text = lambda wanted: torch.stack([texts[text] for text in wanted])  # type: ignore[method-assign]
    return run, backbone


def chunk_denoise(case: Case, folder: Path) -> dict[str, Tensor]:
    """One chunk that continues, from the case's noise and known frames."""
    config, tensors = case["config"], case["tensors"]
    method = build(chunk=config["num_frames"], overlap=config["num_control_input_frames"])
    assert isinstance(method, Streaming)
    embeddings = torch.cat([tensors["image_embedding"], tensors["image_embedding_uncond"]])
    method.anchor_encoder = lambda *_: lambda images: embeddings  # type: ignore[method-assign]
    given = Given([tensors["latents"]], [tensors["variance_noise"]])
    run, backbone = opened_run(case, folder, method, given, config["num_frames"])
    with opened(run, backbone):
        (group,) = run.groups
        run.moments.remember(run=run, window=None, latents=None, frames=(tensors["frames"] + 1) / 2)
        (window,) = run.moments.sample(run=run, group=group, denoise=denoiser(run))
        timesteps = run.timesteps(run.make_scheduler())
    return {"latents": window.latents, "timesteps": timesteps, **given.seen}


def stream_chunks(case: Case, folder: Path) -> dict[str, Tensor]:
    """The whole loop from given first frames, with the case's stand-ins for the VAE and the image encoder."""
    config, scalars, tensors = case["config"], case["scalars"], case["tensors"]
    chunk, overlap = config["num_frames"], config["num_control_input_frames"]
    method = build(chunk=chunk, overlap=overlap)
    assert isinstance(method, Streaming)
    method.anchor_encoder = lambda *_: lambda images: images.mean((2, 3)) @ tensors["embed_matrix"]  # type: ignore
    first = (0.5 + 0.25 * tensors["first_chunk"]).clamp(0, 1)
    method.start = GivenStart(first)  # type: ignore[assignment]
    given = Given(list(tensors["init_noise"]), list(tensors["variance_noise"]))
    given.first_generated = 1
    total = chunk + (chunk - overlap) * (scalars["n_chunks"] - 1)
    run, backbone = opened_run(case, folder, method, given, total)

    def decode(latents: Tensor, at_once: int = 1) -> Any:
        pixels = (0.3 * latents[:, :3]).repeat_interleave(8, -1).repeat_interleave(8, -2)
        yield (pixels.transpose(1, 2) / 2 + 0.5).clamp(0, 1)

    backbone.decode = decode  # type: ignore[method-assign]
    backbone.to_latents = lambda frames, at_once=1: torch.zeros(0)  # type: ignore[method-assign]
    with opened(run, backbone):
        video = torch.cat([block.frames[0] for block in frames(run)])
    return {"video": video[..., ::8, ::8]}


class GivenStart:
    """Frames that are known as floats."""

    def __init__(self, frames: Tensor) -> None:
        self.frames, self.count = frames, len(frames)

    def read(self, span: range) -> Tensor:
        return self.frames[None, span.start : span.stop]


ADAPTERS: dict[str, Callable[[Case, Path], dict[str, Tensor]]] = {
    "cam_forward": cam_forward,
    "base_unet_merge": base_unet_merge,
    "merger": merger,
    "apm": apm,
    "chunk_denoise": chunk_denoise,
    "stream_chunks": stream_chunks,
}
