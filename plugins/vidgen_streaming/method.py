"""StreamingT2V (arXiv 2403.14773): chunks that continue the video, remembering its last frames and an anchor frame.

The first chunk is the plain model's, or the user's image or video. Every further chunk begins with frames that are
known already; they are denoised again beside the new ones and thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.conditioning import Branches, Condition, TokenTables
from vidgen_core.errors import BadRequest, nearest
from vidgen_core.models import image_encoder
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.loading import file_hash
from vidgen_core.models.tuned import DENOISER, Exchange, is_of_another, is_over_time, weights_of
from vidgen_core.run import Group, Run, Window
from vidgen_streaming import published
from vidgen_streaming.baselines import LastFrame
from vidgen_streaming.cam import WIDTHS, Features, merged
from vidgen_streaming.chunks import Chunked
from vidgen_streaming.memory import FrameMemory, Recalled
from vidgen_streaming.networks import Networks, loaded

MODES = ("both", "independent", "last_frame")


def build(mode: str = "both", overlap: int = 8, **options: Any) -> Chunked:
    """The object that runs the chosen mode.

    Args:
        mode: ``both`` memories (the method), or one of the baselines: ``independent`` chunks, and ``last_frame``, which
            begins every chunk with the last frame of the one before.
        **options: As for ``Streaming``; the baselines use those of ``Chunked``.
    """
    if mode not in MODES:
        raise BadRequest(f"streaming.mode={mode} is not a mode.{nearest(mode, MODES)}")
    if mode == "both":
        if overlap < 1:
            raise BadRequest(f"streaming.overlap={overlap} must be at least 1; streaming.mode=independent has none.")
        return Streaming(overlap=overlap, **options)
    shared = {key: value for key, value in options.items() if key not in signature(Streaming).parameters}
    return Chunked(overlap=0, **shared) if mode == "independent" else LastFrame(**shared)


class Streaming(Chunked):
    """Chunks with both memories.

    Args:
        cam, apm: False leaves that memory out.
        anchor: The frame whose appearance is kept: ``first`` of the video, or the last of the ``last_chunk``.
        first_chunk: Who makes the first chunk: the ``model`` as it is, as published, or with its ``tuned`` layers.
        encoder: A CLIP model for the anchor; None takes the weights' own, the model's, or the published one.
        stage: What `vidgen train` trains: ``cam``, or then ``apm``.
        freeze_base: Leaves the model's spatial layers as they are in the second stage.
        embedding_widths: Channels of CAM's frame embedding, where it is made anew.
        hidden: Width of APM's resampler, where it is made anew.
        **options: As for ``Chunked``.
    """

    name = "streaming"

    def __init__(
        self,
        cam: bool = True,
        apm: bool = True,
        anchor: str = "first",
        first_chunk: str = "model",
        encoder: str | None = None,
        stage: str = "cam",
        freeze_base: bool = False,
        embedding_widths: Sequence[int] | None = None,
        hidden: int = 1280,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.with_cam, self.with_apm = cam, apm
        self.anchor, self.stage, self.freeze_base = anchor, stage, freeze_base
        self.first_chunk = first_chunk
        self.encoder_path, self.embedding_widths, self.hidden = encoder, embedding_widths, hidden
        self.encode: Callable[[Tensor], Tensor]
        self.networks: Networks
        self.tuned_layers: Exchange
        self.forget()

    @hookimpl(claims="plan")
    def plan(self, run: Run) -> list[Group]:
        """A chunk after the other; nothing is remembered yet."""
        self.forget()
        return super().plan(run)

    def forget(self) -> None:
        """Remember nothing: neither frames nor what was made of the anchor."""
        self.memory = FrameMemory(self.overlap, self.anchor)
        self._tokens: tuple[Tensor, Tensor] | None = None
        self._tables = TokenTables()

    # ------------------------------------------------------------------------------------------------ model

    @hookimpl
    @contextmanager
    def attach(self, run: Run, backbone: Backbone) -> Iterator[None]:
        """Put CAM and APM beside the model; what the second stage changed in it has its turn after the first chunk."""
        parts, source = self.learnt(run, backbone)
        self.networks = self.made(run, backbone, parts, source)
        backbone.methods[self.name] = self.networks.to(backbone.device, backbone.dtype).eval()
        with ExitStack() as stack:
            stack.callback(self.forget)
            stack.enter_context(super().attach(run, backbone))
            stack.callback(backbone.methods.pop, self.name)
            self.tuned_layers = Exchange(backbone.denoiser, parts.base, source, run.warn, self.name)
            stack.callback(self.tuned_layers.take_out)
            if self.first_chunk == "tuned" or "trainer" in run.config:
                self.tuned_layers.put()
            if self.networks.cam is not None:
                stack.enter_context(self.cam_attached(backbone))
            if self.networks.mergers is not None and "trainer" not in run.config:
                for merger in self.networks.mergers:
                    merger.fuse()
            if self.networks.resampler is not None:
                self.encode = self.anchor_encoder(run, backbone, parts)
                stack.callback(self.__dict__.pop, "encode", None)
                for (_, processor), mix in zip(backbone.text_attention.layers, self.networks.mixes, strict=True):
                    stack.callback(processor.mixes.pop, self.name)
                    processor.mixes[self.name] = mix
            yield

    def learnt(self, run: Run, backbone: Backbone) -> tuple[published.Parts, str]:
        """What was trained, and where it comes from; nothing where nobody names a file."""
        file = weights_of(run.config, self.name)
        if file is None:
            return published.Parts(), ""
        run.provenance["streaming"] = {"weights": {file.name: file_hash(file)}}
        parts, base = published.read(file)
        parts.check(backbone.denoiser, len(backbone.text_attention.layers), str(file))
        if "trainer" not in run.config:
            published.check_sampling(parts, run, str(file))
        if is_of_another(base, backbone):
            # A tuned relative of the model works nearly as well; what is not even of its shape is refused below.
            run.warn(f"'{file}' was learnt on other weights of this model; it is used on those that are loaded.")
        return parts, str(file)

    def made(self, run: Run, backbone: Backbone, parts: published.Parts, source: str) -> Networks:
        """The learned modules of this run: what was trained, and what is to be trained or was drawn."""
        training = "trainer" in run.config
        drawn = not training and bool(run.config["model"].get("untrained"))
        networks = loaded(parts.own, backbone.denoiser, source)
        if source and (networks.cam is None or networks.mergers is None):
            raise BadRequest(
                f"'{source}' has no CAM: the encoder (published as 'unet.*') or its mergers are missing. Copy the file "
                "again, or train both: vidgen train method=streaming streaming.stage=cam."
            )
        if networks.cam is None and not (training or drawn):
            raise BadRequest(
                f"method={self.name} needs weights that were trained for this model, and it brings none. Give "
                "weights=streaming_t2v.ckpt, or train them: vidgen train method=streaming streaming.stage=cam."
            )
        gain = 0.1 if drawn else 0.0
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(run.request.seed)
            if networks.cam is None:
                networks.add_cam(backbone.denoiser, self.widths(backbone), gain)
            if networks.resampler is None and (drawn or (training and self.stage == "apm")):
                features = self.load_encoder(run, backbone, parts).features
                layers, width = len(backbone.text_attention.layers), backbone.denoiser.config.cross_attention_dim
                networks.add_apm(layers, backbone.max_tokens, width, features, self.hidden, gain)
        if not self.with_apm:
            networks.resampler, networks.mixes = None, torch.nn.ModuleList()
        if not self.with_cam:
            networks.cam = networks.mergers = None
        return networks

    def widths(self, backbone: Backbone) -> list[int]:
        """Widths of the frame embedding, one more than the VAE has halvings; as published where none are given.

        Raises BadRequest for another number of them.
        """
        count = backbone.scale_factor.bit_length()
        widths = list(self.embedding_widths or WIDTHS[:count])
        if len(widths) != count:
            raise BadRequest(
                f"streaming.embedding_widths={widths}: the VAE of this model makes one cell of {backbone.scale_factor} "
                f"pixels, for which the frame embedding takes {count} widths."
            )
        return widths

    @contextmanager
    def cam_attached(self, backbone: Backbone) -> Iterator[None]:
        """CAM reads what every call of the U-Net reads, cut to its own frames and without the anchor's tokens."""
        cam, mergers = self.networks.cam, self.networks.mergers
        assert cam is not None and mergers is not None
        reads = backbone.reads
        with ExitStack() as stack:
            text = stack.enter_context(backbone.readied(cam))

            def prepare(parts: Sequence[Mapping[str, Any]]) -> Any:
                if "cam" not in parts[0]:
                    return None
                texts = [part["text"].part(slice(self.overlap)).without(self.name) for part in parts]
                embedded = torch.cat([part["cam"] for part in parts])
                return text.gathered(texts, backbone.device, backbone.dtype), embedded

            def features(latents: Tensor, t: Tensor) -> Features | None:
                assert backbone.inputs is not None
                prepared = backbone.inputs.methods.get(self.name)
                if prepared is None:
                    return None
                projected, embedded = prepared
                text.use(projected)
                known = latents[:, :, : self.overlap]
                found: Features = cam(known, t, embedded, backbone.inputs.placeholder)
                return found

            stack.callback(setattr, backbone, "reads", reads)
            backbone.reads = reads | {"cam"}
            stack.callback(backbone.preparers.pop, self.name)
            backbone.preparers[self.name] = prepare
            stack.enter_context(merged(backbone.denoiser, mergers, backbone.attend, features))
            yield

    def anchor_encoder(self, run: Run, backbone: Backbone, parts: published.Parts) -> Callable[[Tensor], Tensor]:
        """Embeddings (B, E) of anchors (B, 3, H, W) in [-1, 1]. Raises BadRequest for another width than APM reads."""
        encoder, resampler = self.load_encoder(run, backbone, parts), self.networks.resampler
        assert resampler is not None
        encoder.check_width(resampler.width, f"{self.name}.encoder")
        return encoder.to(backbone.device).encode

    def load_encoder(self, run: Run, backbone: Backbone, parts: published.Parts) -> image_encoder.ImageEncoder:
        """The image encoder: the named one, the weights' own, the model's, or the published one."""
        path = self.encoder_path
        if path is None and parts.image_encoder:
            return image_encoder.from_open_clip(parts.image_encoder, dtype=backbone.dtype)
        path = path or run.config["model"].get("image_encoder") or PUBLISHED_ENCODER
        return image_encoder.load(path, dtype=backbone.dtype)

    # ---------------------------------------------------------------------------------------------- windows

    @hookimpl
    def recall(self, run: Run, window: Window) -> dict[str, Any]:
        """``streaming``: the last frames and the anchor; nothing for the first chunk."""
        if run.batch is None:
            recalled = self.memory.recall()
            return {} if recalled is None else {self.name: recalled}
        if self.name not in run.batch.memory:
            raise BadRequest(f"method={self.name} learns to continue clips. Train it with objective={self.name}.")
        return {self.name: run.batch.memory[self.name]}

    @hookimpl(claims="cam")
    def condition(self, run: Run, window: Window) -> dict[str, Any]:
        """``cam``: the known frames (B, K, C, h, w), embedded once for all steps of the chunk."""
        recalled = window.memory.get(self.name)
        if recalled is None or self.networks.cam is None:
            return {}
        embedding = self.networks.cam.controlnet_cond_embedding
        return {"cam": embedding(recalled.frames.to(run.backbone.device, run.backbone.dtype))}

    @hookimpl
    def refine_condition(self, run: Run, window: Window, condition: Condition) -> Condition | None:
        """``text`` with the anchor's tokens, kept apart, and those of a grey image for the unguided branch."""
        recalled = window.memory.get(self.name)
        if recalled is None or self.networks.resampler is None:
            return None
        text = condition["text"]
        anchors, blank = self.tokens(run, recalled)
        own = torch.arange(len(anchors))[:, None].expand_as(text.cond.index)
        if run.batch is not None:
            if recalled.blank is not None:
                anchors = torch.where(recalled.blank.to(anchors.device)[:, None, None], blank, anchors)
            cond = text.cond.beside(self.name, anchors, own)
            return Condition({**condition, "text": Branches(cond, text.uncond)})
        # Each branch by itself: another method may have told one of them alone of an image.
        cond = self._tables.beside(text.cond, self.name, anchors, own)
        uncond = self._tables.beside(text.uncond, self.name, blank, torch.zeros_like(own))
        return Condition({**condition, "text": Branches(cond, uncond)})

    def tokens(self, run: Run, recalled: Recalled) -> tuple[Tensor, Tensor]:
        """Tokens (B, T, D) of the anchors and (1, T, D) of a grey image; once per video where the anchor stays."""
        stays = self.anchor == "first" and run.batch is None
        if self._tokens is None or not stays:
            resampler, backbone = self.networks.resampler, run.backbone
            assert resampler is not None
            images = torch.cat([recalled.anchor, torch.zeros_like(recalled.anchor[:1])])
            made = resampler(self.encode(images.to(backbone.device)).to(backbone.dtype))
            self._tokens = made[:-1], made[-1:]
            if stays and "trainer" not in run.config:  # a training's videos have an anchor each
                del self.encode  # the encoder, which is larger than CAM
        return self._tokens

    @hookimpl
    def remember(self, run: Run, frames: Tensor) -> None:
        """Keep the last frames, and the first of all. What follows is made by the layers of the second stage."""
        self.memory.remember(frames)
        if self.tuned_layers.put():
            run.backbone.text_attention.forget()

    # --------------------------------------------------------------------------------------------- training

    @hookimpl(claims=("cam", "mergers", "resampler", "mixes", "denoiser"))
    def trainable(self, backbone: Backbone) -> dict[str, Tensor]:
        """CAM in the first stage; in the second APM too, and the model's spatial layers unless they are frozen."""
        names = self.networks.own()
        if self.stage == "cam":
            return {name: p for name, p in names.items() if name.startswith(("cam.", "mergers."))}
        if self.freeze_base:
            return names
        base = backbone.denoiser.named_parameters()
        return names | {f"{DENOISER}{name}": p for name, p in base if not is_over_time(name)}


PUBLISHED_ENCODER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""The image encoder of the released weights."""
