"""Where tensors live and in what form: device, dtype, offload, slices. Chosen automatically, printed, never silent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vidgen_core.errors import BadRequest, nearest

if TYPE_CHECKING:
    from vidgen_core.models.backbone import Backbone
    from vidgen_core.request import Request

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHOICES = {
    "offload": ("none", "model"),
    "guidance": ("auto", "batched", "two_pass"),
    "compile": ("none", "blocks", "graph", "blocks+graph"),
}
CPU_PIECES = 64 * 2**20
"""Activations of a step, in bytes, above which a CPU works in pieces: guidance in two passes, feed-forward chunks."""


@dataclass(frozen=True)
class Placement:
    """The resolved plan of one run."""

    device: torch.device
    dtype: torch.dtype
    offload: str = "none"
    vae_slice: int = 1
    vae_tiling: bool = False
    feed_forward_chunks: int = 1
    guidance: str = "batched"
    channels_last: bool = False
    compile: str = "none"
    reasons: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """The plan as configuration, so that a run can be repeated with the very same one."""
        chosen = {key: value for key, value in asdict(self).items() if key != "reasons"}
        return {**chosen, "device": str(self.device), "dtype": self._dtype_name}

    @property
    def _dtype_name(self) -> str:
        return next(key for key, value in DTYPES.items() if value is self.dtype)

    def __str__(self) -> str:
        parts = [
            f"{self.device} {self._dtype_name}",
            f"guidance {self.guidance.replace('_', ' ')}",
            f"VAE {self.vae_slice} frame{'s' if self.vae_slice > 1 else ''} at a time",
        ]
        if self.offload != "none":
            parts.append(f"{self.offload} offload")
        if self.vae_tiling:
            parts.append("VAE tiled")
        if self.feed_forward_chunks > 1:
            parts.append(f"feed-forward in {self.feed_forward_chunks} chunks")
        if self.channels_last:
            parts.append("channels last")
        if self.compile != "none":
            parts.append(f"compile {self.compile}")
        return "; ".join(parts) + (f" ({'; '.join(self.reasons)})" if self.reasons else "")


def device_and_dtype(config: Mapping[str, Any]) -> tuple[torch.device, torch.dtype]:
    """The device and dtype to load into. ``auto``: CUDA in fp16 or bf16 where there is one, else the CPU in fp32.

    Raises BadRequest for a device that is not there, an unknown dtype, or a value outside CHOICES.
    """
    for key, choices in CHOICES.items():
        value = str(config.get(key) or choices[0])
        if value not in choices:
            raise BadRequest(f"placement.{key}={value} is not a choice.{nearest(value, choices)}")
    if "graph" in str(config.get("compile")) and config.get("offload") == "model":
        raise BadRequest(
            f"placement.compile={config['compile']} needs weights in place, but placement.offload=model moves "
            "them. Choose one of the two."
        )
    wanted = str(config.get("device") or "auto")
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted)
        if device.type not in ("cpu", "cuda", "mps"):
            raise RuntimeError("nothing is computed there")
    except RuntimeError as error:
        raise BadRequest(f"placement.device={wanted} is no device. Use auto, cpu, cuda or cuda:1.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadRequest(f"placement.device={wanted}, but this torch sees no CUDA device. Use cpu or auto.")
    if "graph" in str(config.get("compile")) and device.type != "cuda":
        raise BadRequest(
            f"placement.compile={config['compile']} captures CUDA graphs and needs a CUDA device. "
            "Use placement.compile=none."
        )
    name = str(config.get("dtype") or "auto")
    if name == "auto":
        best = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp16"
        return device, DTYPES[best] if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise BadRequest(f"placement.dtype={name} is not known.{nearest(name, [*DTYPES, 'auto'])}")
    return device, DTYPES[name]


def plan(config: Mapping[str, Any], backbone: Backbone, request: Request, frames: int | None = None) -> Placement:
    """Fill in what the user left open, from the model's size and the memory that is free.

    Args:
        frames: Frames of the longest window; all of the request by default.
    """
    device, dtype = device_and_dtype(config)
    reasons = []
    free = free_memory(device)
    need = activation_bytes(backbone, request, frames or request.num_frames, dtype)
    if device.type == "cuda" and backbone.device.type != "cuda":
        need += sum(weight.numel() * weight.element_size() for weight in backbone.parameters())
    short = free is not None and need > 0.6 * free
    # A CPU gains nothing from a larger batch, and pieces that stay in its cache are faster as well as smaller.
    pieces = short or (device.type == "cpu" and need > CPU_PIECES)
    if short:
        reasons.append(f"a step needs about {need / 2**30:.1f} GiB, {(free or 0) / 2**30:.1f} GiB are free")
    elif pieces:
        reasons.append(f"a step of about {need / 2**20:.0f} MiB is faster on a CPU in pieces")
    guidance = str(config.get("guidance") or "auto")
    if guidance == "auto":
        guidance = "two_pass" if pieces else "batched"
    chunks = int(config.get("feed_forward_chunks") or 0)
    if chunks == 0:
        chunks = 8 if pieces else 1
    vae_slice = int(config.get("vae_slice") or 0)
    if vae_slice == 0:
        # A slice's widest map at full resolution; slices of one are as fast on the CPU and hold the least.
        vae_slice = 1 if device.type == "cpu" or short else 4
    return Placement(
        device,
        dtype,
        str(config.get("offload") or "none"),
        vae_slice,
        bool(config.get("vae_tiling")),
        chunks,
        guidance,
        bool(config.get("channels_last")),
        str(config.get("compile") or "none"),
        tuple(reasons),
    )


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on the device, caches included; None where that cannot be told."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    try:  # a container may have less than its machine
        limit, used = (int(Path("/sys/fs/cgroup", name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):
        return free
    return min(free, max(limit - used, 0))


def activation_bytes(backbone: Backbone, request: Request, frames: int, dtype: torch.dtype) -> int:
    """A rough bound of one guided step's activations: the feed-forward's 8 C and some 20 C of skips and inputs."""
    _, h, w = backbone.latent_shape(request.height, request.width)
    width = backbone.denoiser.config.block_out_channels[0]
    rows = 2 * len(request.videos) * frames * h * w
    return rows * width * 28 * torch.tensor([], dtype=dtype).element_size()


class ModelOffload:
    """Keeps one part of the backbone on the device at a time; ``need(part)`` moves it there and the others away."""

    def __init__(self, parts: list[nn.Module], device: torch.device) -> None:
        self.device = device
        self.parts = parts
        self.present: nn.Module | None = None

    def need(self, part: nn.Module) -> None:
        """Bring a part to the device."""
        if self.present is part:
            return
        for other in self.parts:
            if other is not part:
                nn.Module.to(other, "cpu")
        nn.Module.to(part, self.device)
        self.present = part


@contextmanager
def placed(backbone: Backbone, placement: Placement) -> Iterator[None]:
    """Place the backbone as planned inside the context; what changed in it is undone afterwards."""
    parts = [p for p in (backbone.denoiser, backbone.vae, backbone.text_encoder) if p is not None]
    with ExitStack() as stack:
        if placement.offload == "model":
            backbone.offload = ModelOffload(parts, placement.device)
            stack.callback(setattr, backbone, "offload", None)
            # What methods learn is small and stays.
            backbone.methods.to(placement.device)
        else:
            for part in [*parts, backbone.methods]:
                nn.Module.to(part, placement.device)
        if placement.vae_tiling and backbone.vae is not None:
            backbone.vae.enable_tiling()
            stack.callback(backbone.vae.disable_tiling)
        if placement.feed_forward_chunks > 1:
            stack.enter_context(_feed_forward_chunked(backbone.denoiser, placement.feed_forward_chunks))
        if placement.channels_last:
            stack.enter_context(_channels_last(backbone.denoiser))
        if "blocks" in placement.compile:
            stack.enter_context(_compiled_blocks(backbone.denoiser))
        if "graph" in placement.compile:
            from vidgen_core.cuda_graph import captured

            stack.enter_context(captured(backbone))
        yield


@contextmanager
def _feed_forward_chunked(denoiser: nn.Module, chunks: int) -> Iterator[None]:
    # The GEGLU's 8 C map is the largest activation of a step.
    from diffusers.models.attention import FeedForward

    def chunked(module: nn.Module) -> Any:
        whole = module.forward

        def forward(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            # Rows are independent; a new tensor is filled, so that no list of parts lives beside the result.
            rows = hidden_states.shape[0]
            size = -(-rows // chunks)
            out = torch.empty_like(hidden_states)
            for start in range(0, rows, size):
                out[start : start + size] = whole(hidden_states[start : start + size], *args, **kwargs)
            return out

        return forward

    blocks = [module for module in denoiser.modules() if isinstance(module, FeedForward)]
    for block in blocks:
        block.forward = chunked(block)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


@contextmanager
def _channels_last(denoiser: nn.Module) -> Iterator[None]:
    convolutions = [module for module in denoiser.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    for module in convolutions:
        layout = torch.channels_last if isinstance(module, nn.Conv2d) else torch.channels_last_3d
        module.weight.data = module.weight.data.contiguous(memory_format=layout)
    try:
        yield
    finally:
        for module in convolutions:
            module.weight.data = module.weight.data.contiguous()


@contextmanager
def _compiled_blocks(denoiser: nn.Module) -> Iterator[None]:
    # The repeated leaves; UNet3D's own list of repeated blocks is empty.
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D, TemporalConvLayer

    kinds = BasicTransformerBlock | ResnetBlock2D | TemporalConvLayer
    blocks = [module for module in denoiser.modules() if isinstance(module, kinds)]
    for block in blocks:
        block.forward = torch.compile(block.forward)
    # All blocks of a class share one code object: each width and branch of it counts against the same limit, beyond
    # which dynamo runs the rest uncompiled and says nothing.
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    try:
        with torch._dynamo.config.patch({limit: 4 * len(blocks)}):
            yield
    finally:
        for block in blocks:
            del block.forward
