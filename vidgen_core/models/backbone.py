"""A stock denoiser, VAE and text encoder behind one call: ``(latents, t, inputs) -> prediction``.

B videos, C channels, F frames, h w latent cells, U distinct texts, L tokens, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidgen_core import attention
from vidgen_core.attention import Attend, SelfAttention, TextCrossAttention
from vidgen_core.conditioning import Condition, PerFrameText
from vidgen_core.errors import VidgenError
from vidgen_core.models.text_attention import TextAttention


@dataclass
class ModelInput:
    """The conditions of one network call, prepared once per window: text rows are gathered, tensors are placed."""

    batch: int  # videos times branches
    text: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # per cross-attention: key, value (G, h, L, d)
    placeholder: Tensor | None = None  # (batch, 1, D): the stock forward wants a text argument; nobody reads it
    channels: Tensor | None = None  # (batch, Cx, F, h, w): further latent channels, after the noisy ones
    methods: dict[str, Any] = field(default_factory=dict)  # method -> what it prepared of the window's condition


class Backbone(nn.Module):
    """A denoiser of the UNet3D family with its VAE and text encoder.

    Args:
        denoiser: ``UNet3DConditionModel``, or a class of the same call; None where only other parts are trained.
        vae: ``AutoencoderKL``; None where only latents are wanted.
        text_encoder: ``CLIPTextModel``; None where embeddings are supplied.
        tokenizer: A transformers tokenizer; its ``model_max_length`` is L.
        scheduler_config: The checkpoint's scheduler configuration with its ``_class_name``.
        weights: Name of each loaded file -> sha256, for the provenance.
        trained_frames: Frames the model was trained for; 0 when unknown.
    """

    pipeline = "TextToVideoSDPipeline"
    """diffusers' pipeline for a folder of these parts."""

    def __init__(
        self,
        denoiser: nn.Module | None,
        vae: nn.Module | None = None,
        text_encoder: nn.Module | None = None,
        tokenizer: Any = None,
        scheduler_config: dict[str, Any] | None = None,
        weights: dict[str, str] | None = None,
        trained_frames: int = 0,
    ) -> None:
        super().__init__()
        self.denoiser: Any = denoiser
        self.vae: Any = vae
        self.text_encoder: Any = text_encoder
        self.tokenizer = tokenizer
        self.scheduler_config = dict(scheduler_config or {})
        self.scheduler_changes: dict[str, Any] = {}  # what a method's `attach` changes of it; never saved
        self.weights = dict(weights or {})
        self.trained_frames = trained_frames
        self.methods = nn.ModuleDict()  # what methods learn, by method name
        # The named conditions that the network reads; a method adds its own in `attach`.
        self.reads = {"text", "channels"} if self.extra_channels > 0 else {"text"}
        self.attention = "sdpa"
        self.attend: Attend = attention.BACKENDS["sdpa"]
        self.offload: Any = None  # set by placement: moves parts to the device on use
        self.graphed: Any = None  # set by placement: the denoiser as a CUDA graph
        self.text_attention = TextAttention()
        # What methods prepare of a window's condition, once: method -> (the branches' conditions) -> anything.
        self.preparers: dict[str, Callable[[Sequence[Mapping[str, Any]]], Any]] = {}
        self.inputs: ModelInput | None = None  # of the network's call in progress, or of the last

    @property
    def sampling_config(self) -> dict[str, Any]:
        """The scheduler's configuration that videos are made with: the checkpoint's, and what methods change of it."""
        return {**self.scheduler_config, **self.scheduler_changes}

    # ------------------------------------------------------------------------------------------ geometry

    @property
    def device(self) -> torch.device:
        """Where the denoiser computes; without one, where the other parts do."""
        return self.offload.device if self.offload is not None else next(self._computing.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The denoiser's dtype; without one, that of the other parts."""
        return next(self._computing.parameters()).dtype

    @property
    def _computing(self) -> nn.Module:
        return self if self.denoiser is None else self.denoiser

    @property
    def extra_channels(self) -> int:
        """Cx: how many channels the denoiser wants after the noisy ones, as the named condition ``channels``."""
        config = getattr(self.denoiser, "config", None)
        return config.in_channels - config.out_channels if config is not None else 0

    @property
    def scale_factor(self) -> int:
        """Pixels per latent cell along one side; 8 without a VAE."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1) if self.vae is not None else 8

    @property
    def size_multiple(self) -> int:
        """What height and width must divide by, in pixels."""
        return math.lcm(8, self.scale_factor)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, h, w) of one frame of latents for a frame of height x width pixels."""
        channels = self.denoiser.config.out_channels
        return channels, height // self.scale_factor, width // self.scale_factor

    # ------------------------------------------------------------------------------------------ attention

    @contextmanager
    def attention_installed(self, name: str) -> Iterator[None]:
        """Run every attention of the denoiser through the backend ``name``, with per-frame text, inside the context."""
        self.attention, self.attend = attention.backend(name, self.device, self.dtype)
        try:
            if self.denoiser is None:
                yield
                return
            with self.readied(self.denoiser) as self.text_attention:
                yield
        finally:
            self.text_attention, self.inputs = TextAttention(), None
            self.attention, self.attend = "sdpa", attention.BACKENDS["sdpa"]

    @contextmanager
    def readied(self, network: nn.Module) -> Iterator[TextAttention]:
        """The core's processors in every attention of a network, such as a method's copy of a part of the denoiser."""
        name, attend = self.attention, self.attend

        def build(path: str, module: Any, current: Any) -> Any:
            if not attention.is_plain(module):
                raise VidgenError(f"The attention '{path}' has parts that this backbone does not know.")
            kind = TextCrossAttention if module.is_cross_attention else SelfAttention
            return kind(name, attend)

        with attention.install(network, lambda n, m: True, build, owner="core"):
            yield TextAttention(network)

    def verify_attention(self, claims: Mapping[str, Collection[str]] | None = None) -> None:
        """Raise VidgenError unless every attention, those of methods too, runs the backend that was asked for.

        Args:
            claims: Method -> the kinds of attention that it may replace; None does not ask.
        """
        if self.denoiser is not None:
            attention.verify_backend(self.denoiser, self.attention)
            if claims is not None:
                attention.verify_claims(self.denoiser, claims)

    @property
    def text_processors(self) -> list[TextCrossAttention]:
        """The processors that hold the text's keys and values, in the order of ``ModelInput.text``."""
        return [processor for _, processor in self.text_attention.layers]

    # ------------------------------------------------------------------------------------------ prediction

    def prepare(self, condition: Condition, branches: Sequence[str]) -> ModelInput:
        """The input of one network call that predicts these branches together, stacked in their order.

        Text keys and values are projected once per ``embeds`` object and gathered here, once per window.
        """
        parts = [condition.branch(name) for name in branches]
        texts: list[PerFrameText] = [part["text"] for part in parts]
        if self.offload is not None:
            self.offload.need(self.denoiser)
        text = self.text_attention.gathered(texts, self.device, self.dtype)
        batch = sum(len(text.index) for text in texts)
        placeholder = torch.zeros(batch, 1, texts[0].embeds.shape[-1], device=self.device, dtype=self.dtype)
        prepared = {method: prepare(parts) for method, prepare in self.preparers.items()}
        return ModelInput(batch, text, placeholder, self._channels(parts), prepared)

    def _channels(self, parts: Sequence[Mapping[str, Any]]) -> Tensor | None:
        """The branches' extra channels (batch, Cx, F, h, w), stacked in their order."""
        if "channels" not in self.reads:
            return None
        given = [part.get("channels") for part in parts]
        if any(part is None for part in given):
            raise VidgenError(
                f"This model reads {self.extra_channels} latent channels beside the noisy ones, such as depth, and "
                "nothing supplies them. Choose a method that does, or a model without them."
            )
        found = {part.shape[1] for part in given if part is not None}
        if found != {self.extra_channels}:
            raise VidgenError(f"This model reads {self.extra_channels} extra channels; {sorted(found)} were supplied.")
        return torch.cat([part.to(self.device, self.dtype) for part in given if part is not None])

    def predict(self, latents: Tensor, t: Tensor, inputs: ModelInput) -> Tensor:
        """The network's output (batch, C, F, h, w) for latents of the same shape at timestep ``t``."""
        if inputs is not self.inputs:
            self.text_attention.use(inputs.text)
            self.inputs = inputs
        if self.offload is not None:
            self.offload.need(self.denoiser)
        latents = latents.to(self.device, self.dtype)
        if inputs.channels is not None:
            latents = torch.cat([latents, inputs.channels], dim=1)
        return self._denoise(self.graphed or self.denoiser, latents, t, inputs)

    def _denoise(self, network: Any, latents: Tensor, t: Tensor, inputs: ModelInput) -> Tensor:
        """One call of the stock network on all its channels (batch, C + Cx, F, h, w)."""
        out: Tensor = network(latents, t, encoder_hidden_states=inputs.placeholder, return_dict=False)[0]
        return out

    # ------------------------------------------------------------------------------------------------ text

    @property
    def max_tokens(self) -> int:
        """L, the tokenizer's length, or the text encoder's where that is less; texts beyond it are cut."""
        positions = self.text_encoder.config.max_position_embeddings
        return int(min(self.tokenizer.model_max_length, positions))

    def count_tokens(self, text: str) -> int:
        """How many tokens a text needs, start and end included."""
        return len(self.tokenizer(text, verbose=False).input_ids)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """The last hidden states (n, L, D) of texts, padded and cut to L tokens, without an attention mask.

        Differentiable where the text encoder trains.
        """
        if self.text_encoder is None:
            raise VidgenError("This backbone has no text encoder; its texts must be supplied as embeddings.")
        if self.offload is not None:
            self.offload.need(self.text_encoder)
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=self.max_tokens, truncation=True, return_tensors="pt"
        )
        device = self.offload.device if self.offload is not None else self.text_encoder.device
        out: Tensor = self.text_encoder(tokens.input_ids.to(device)).last_hidden_state
        return out

    # -------------------------------------------------------------------------------------------- pixels

    @torch.no_grad()
    def encode(self, pixels: Tensor, frames_at_once: int = 16) -> Tensor:
        """The VAE's posterior (N, 2 C, h, w), mean and log-variance, of pixels (N, 3, H, W) in [-1, 1]; unscaled."""
        if self.vae is None:
            raise VidgenError("This backbone has no VAE; it trains on latents only.")
        if self.offload is not None:
            self.offload.need(self.vae)
        parts = pixels.to(self.vae.device, self.vae.dtype).split(frames_at_once)
        return torch.cat([self.vae.encode(part).latent_dist.parameters for part in parts])

    def to_latents(self, frames: Tensor, frames_at_once: int = 16) -> Tensor:
        """Scaled latents (B, C, F, h, w), the posterior's mean, of frames (B, F, 3, H, W) in [0, 1]."""
        moments = self.encode(frames.flatten(0, 1) * 2 - 1, frames_at_once)
        mean = moments.chunk(2, dim=1)[0].unflatten(0, frames.shape[:2]).transpose(1, 2)
        return mean * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor, frames_at_once: int = 1) -> Iterator[Tensor]:
        """Yield pixels (B, n, 3, H, W), float32 in [0, 1] on the CPU, a few frames at a time, in order.

        The VAE normalises every frame by itself, so slicing is exact; all frames at once is what runs out of memory.
        """
        if self.vae is None:
            raise VidgenError("This backbone has no VAE; only latents can be had from it.")
        if self.offload is not None:
            self.offload.need(self.vae)
        scaling = self.vae.config.scaling_factor
        device = self.offload.device if self.offload is not None else self.vae.device
        for start in range(0, latents.shape[2], frames_at_once):
            part = latents[:, :, start : start + frames_at_once]
            cells = part.transpose(1, 2).flatten(0, 1).to(device, self.vae.dtype) / scaling
            pixels = self.vae.decode(cells, return_dict=False)[0].float().cpu()
            yield pixels.mul_(0.5).add_(0.5).clamp_(0, 1).unflatten(0, (len(part), -1))

    # --------------------------------------------------------------------------------------------- files

    def save(self, folder: Path, dtype: torch.dtype) -> None:
        """Write the parts to a new folder from which they can be loaded again, weights in ``dtype``."""
        from vidgen_core.models.saving import save_backbone

        save_backbone(self, folder, dtype)
