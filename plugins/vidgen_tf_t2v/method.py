"""TF-T2V (arXiv 2312.15770): text and image are interchangeable ways to say what a video shows.

One U-Net serves images, through its spatial layers, and videos, through all of them. Image tokens stand beside the
text in every cross-attention, and maps of spatial conditions enter at the first convolution. B videos, F frames,
K image tokens, D features, h w latent cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.conditioning import Branches, Condition, PerFrameText, TokenTables
from vidgen_core.data.sample import Batch, Source, extras_of
from vidgen_core.errors import BadRequest, nearest
from vidgen_core.models import image_encoder
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.image_encoder import ImageEncoder
from vidgen_core.models.loading import file_hash
from vidgen_core.models.tuned import DENOISER, check_base, is_of_another, read_tensors, replaced, weights_of
from vidgen_core.request import Request
from vidgen_core.run import FrameBlock, Run, Window
from vidgen_core.training.latents import check_pixels
from vidgen_core.training.learner import PARTS
from vidgen_tf_t2v.branches import Prepared, installed
from vidgen_tf_t2v.coherence import check_reduction, temporal_coherence
from vidgen_tf_t2v.conditions import check_conditions, read_conditions, shown
from vidgen_tf_t2v.dropping import Dropping
from vidgen_tf_t2v.extract import Extraction
from vidgen_tf_t2v.map_encoder import encoded
from vidgen_tf_t2v.maps import HISTOGRAM
from vidgen_tf_t2v.networks import Networks, add_encoders, fresh, loaded
from vidgen_tf_t2v.prompts import as_published
from vidgen_tf_t2v.published import carried, is_published
from vidgen_tf_t2v.reference import check_reference, middle_frames, reference
from vidgen_tf_t2v.refinement import SR600
from vidgen_tf_t2v.slots import (
    check_slots,
    empty_image,
    guided_text,
    with_frames,
    with_image,
    with_negative,
    without_text,
)
from vidgen_tf_t2v.trained_maps import check_brought, check_trained, height_and_width, trained_maps

BRANCHES = ("auto", "content", "motion")

IMAGE_STARTS = ("drawn", "silent")
"""How new image layers begin: as torch draws layers, or with tokens of zeros, whatever the image."""


class TFT2V:
    """Image tokens, spatial conditions, the two branches, and the coherence loss.

    Args:
        text, no_text, no_image, unguided_image: What stands in the slots of cross-attention, see ``slots``.
        branch: ``content`` runs the spatial layers only, ``motion`` all; ``auto`` decides by the number of frames.
        keep_last: The content branch as released, with one layer over time.
        conditions: Spatial condition -> file of its maps, or ``auto``, see ``conditions``.
        depth_estimator, sketch_network: What ``auto`` makes depth and sketches by, see ``Extraction``.
        trained_conditions: Spatial conditions that a training learns to read, see ``trained_maps``.
        published_prompt: Prompts as the release completes them.
        encoder: A CLIP model; None takes the model's.
        tokens: K, where the image layers are made anew.
        image_start: And how these begin, see ``IMAGE_STARTS``.
        coherence_weight: Of the temporal coherence loss; 0 leaves it out.
        coherence: Its reduction, see ``temporal_coherence``.
        drop, drop_all, drop_none, drop_to_negative: Shares of training samples, see ``Dropping``.
        refine: SR600's checkpoint, which refines the finished frames; None leaves them.
        refine_*: As for ``refinement.SR600``.
    """

    name = "tf_t2v"

    def __init__(
        self,
        text: str = "prompt",
        no_text: str = "negative",
        no_image: str = "omit",
        unguided_image: str = "zero_embedding",
        branch: str = "auto",
        keep_last: bool = False,
        conditions: Mapping[str, str] | None = None,
        depth_estimator: str | None = None,
        sketch_network: str | None = None,
        trained_conditions: Sequence[str] = (),
        published_prompt: bool = False,
        encoder: str | None = None,
        tokens: int = 4,
        image_start: str = "drawn",
        coherence_weight: float = 0.1,
        coherence: str = "mean",
        drop: float = 0.4,
        drop_all: float = 0.1,
        drop_none: float = 0.1,
        drop_to_negative: float = 0.1,
        refine: str | None = None,
        refine_parts: str | None = None,
        refine_size: Sequence[int] = (720, 1280),
        refine_steps: int = 30,
        refine_guidance_scale: float = 9.0,
        refine_rescale: float = 0.3,
    ) -> None:
        check_slots(text, no_text, no_image, unguided_image)
        check_reduction(coherence)
        if branch not in BRANCHES:
            raise BadRequest(f"tf_t2v.branch={branch} is not a branch.{nearest(branch, BRANCHES)}")
        self.text, self.no_text, self.no_image, self.unguided_image = text, no_text, no_image, unguided_image
        self.branch, self.keep_last = branch, keep_last
        self.conditions, self.published_prompt = dict(conditions or {}), published_prompt
        self.extraction = Extraction(depth_estimator, sketch_network)
        self.trained_conditions = check_trained(trained_conditions)
        if image_start not in IMAGE_STARTS:
            raise BadRequest(f"tf_t2v.image_start={image_start} is no start.{nearest(image_start, IMAGE_STARTS)}")
        self.encoder_path, self.tokens, self.silent = encoder, tokens, image_start == "silent"
        self.coherence_weight, self.coherence = coherence_weight, coherence
        self.dropping = Dropping(drop, drop_all, drop_none, drop_to_negative)
        self.refinement: SR600 | None = None
        if refine is not None:
            self.refinement = SR600(
                refine, refine_parts, refine_size, refine_steps, refine_guidance_scale, refine_rescale
            )
        self.networks: Networks
        self.encoder: ImageEncoder | None = None  # kept by a training, which looks at other pictures in every step
        self.embedding: Tensor | None = None  # (1, E), of the user's picture
        self.given: dict[str, Tensor] = {}  # condition -> (c, F, H, W), of the whole video
        self.forget()

    def forget(self) -> None:
        """Keep nothing that was made of the picture for one video."""
        self.slots: tuple[Tensor | None, Tensor | None] | None = None
        self.tables = TokenTables()

    @hookimpl
    def prepare_request(self, request: Request) -> Request | None:
        """Look for the picture and the maps before anything heavy, and complete the prompts where asked."""
        check_conditions(self.conditions, request)
        check_reference(shown(self.conditions, request))
        return as_published(request) if self.published_prompt else None

    # ------------------------------------------------------------------------------------------------ model

    @hookimpl
    @contextmanager
    def attach(self, run: Run, backbone: Backbone) -> Iterator[None]:
        """Put the learned modules beside the model, and have the network read what they make."""
        own, base, source = self.learnt(run, backbone)
        self.networks = self.made(run, backbone, own, source)
        self.given = read_conditions(self.conditions, run.request, self.extraction, backbone.device)
        self.look(run, backbone)
        backbone.methods[self.name] = self.networks.to(backbone.device, backbone.dtype).eval()
        with ExitStack() as stack:
            stack.callback(self.forget)
            stack.callback(backbone.methods.pop, self.name)
            stack.enter_context(replaced(backbone.denoiser, base, source, run.warn, self.name))
            stack.callback(setattr, backbone, "reads", backbone.reads)
            backbone.reads = backbone.reads | {"spatial"}
            stack.callback(backbone.preparers.pop, self.name)
            backbone.preparers[self.name] = lambda parts: self.prepared(run, parts)

            def told() -> Prepared:
                assert backbone.inputs is not None
                found: Prepared = backbone.inputs.methods[self.name]
                return found

            stack.enter_context(installed(backbone.denoiser, told, self.keep_last))
            if self.refinement is not None:
                stack.enter_context(self.refinement.opened(run, backbone))
            yield

    def learnt(self, run: Run, backbone: Backbone) -> tuple[dict[str, Tensor], dict[str, Tensor], str]:
        """The method's tensors, those of the U-Net that were trained with them, and where they come from."""
        file = weights_of(run.config, self.name)
        if file is None:
            return carried(backbone.denoiser), {}, "the model's checkpoint"
        tensors, base_model = read_tensors(file)
        if is_published(tensors):
            raise BadRequest(f"'{file}' is a whole published model. Give it as that: model=tf_t2v model.path={file}.")
        run.provenance[self.name] = {"weights": {file.name: file_hash(file)}}
        base = {name.removeprefix(DENOISER): t for name, t in tensors.items() if name.startswith(DENOISER)}
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith(DENOISER)}
        if base:
            check_base(base_model, backbone, file)
        elif is_of_another(base_model, backbone):
            # What stands beside the network goes with a tuned relative of the model as well.
            run.warn(f"'{file}' was learnt on other weights of this model; it is used on those that are loaded.")
        return own, base, str(file)

    def made(self, run: Run, backbone: Backbone, own: Mapping[str, Tensor], source: str) -> Networks:
        """The learned modules of this run: what was trained, and what is to be trained or was drawn."""
        training = "trainer" in run.config
        drawn = not training and bool(run.config["model"].get("untrained"))
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(run.request.seed)
            networks = self.loaded_or_fresh(run, backbone, own, source, training, drawn)
        if training and self.conditions:
            raise BadRequest(
                "tf_t2v.conditions says what a video is made of, but a training takes its maps from its data. Leave it "
                "out; tf_t2v.trained_conditions=[...] says what is learnt."
            )
        reads = [*networks.encoders, *([] if networks.histogram is None else [HISTOGRAM])]
        for name in self.conditions:
            if name not in reads:
                raise BadRequest(
                    f"tf_t2v.conditions.{name} is given, but these weights do not read it; they read: "
                    f"{', '.join(reads) or 'none'}. Leave it out, or use a checkpoint of composed conditions, such as "
                    "tft2v_vcomposer_non_ema_254000.pth."
                )
        return networks

    def loaded_or_fresh(
        self, run: Run, backbone: Backbone, own: Mapping[str, Tensor], source: str, training: bool, drawn: bool
    ) -> Networks:
        """The modules of a file, or new ones for a training or for the tiny model; a training adds its encoders."""
        if own:
            networks = loaded(own, source)
            add_encoders(networks, backbone.denoiser, self.trained_conditions if training else ())
            return networks
        if training or drawn:
            width = self.image_encoder(run, backbone).features
            read = self.trained_conditions if training else [n for n in self.conditions if n != HISTOGRAM]
            return fresh(backbone.denoiser, width, self.tokens, read, 0.1 if drawn else 0.0, self.silent)
        raise BadRequest(
            "method=tf_t2v needs weights that were trained for this model, and it brings none. Use a published "
            "checkpoint, model=tf_t2v model.path=tft2v_t2v_non_ema_512000.pth, or train them: vidgen train "
            "method=tf_t2v."
        )

    def image_encoder(self, run: Run, backbone: Backbone) -> ImageEncoder:
        """The image encoder, read once: the named one, the model's, or the published one."""
        if self.encoder is None:
            path = self.encoder_path or run.config["model"].get("image_encoder") or PUBLISHED_ENCODER
            self.encoder = image_encoder.load(path, dtype=backbone.dtype, resize="center_bilinear").to(backbone.device)
        return self.encoder

    def look(self, run: Run, backbone: Backbone) -> None:
        """Embed the user's picture; a training keeps the encoder, for those of its clips."""
        picture, image = reference(shown(self.conditions, run.request)), self.networks.image
        training = "trainer" in run.config
        if picture is not None or training:
            if image is None:
                raise BadRequest(
                    "method=tf_t2v is given an image or a video, but these weights read none. Leave it out, or use a "
                    "checkpoint of TF-T2V."
                )
            encoder = self.image_encoder(run, backbone)
            encoder.check_width(image.width, f"{self.name}.encoder")
            self.embedding = None if picture is None else encoder.encode(picture)
        self.encoder = self.encoder if training else None

    # ---------------------------------------------------------------------------------------------- windows

    @hookimpl(claims="spatial")
    def condition(self, run: Run, window: Window) -> dict[str, Any]:
        """``spatial``: the maps' channels (B, C, F, h, w), encoded once for all steps of the window."""
        backbone, batch = run.backbone, run.batch
        if batch is None:
            maps = {name: given for name, given in self.maps_of(run, window).items() if name != HISTOGRAM}
            height, width, kept = run.request.height, run.request.width, None
        else:
            found = trained_maps(batch, self.trained_conditions)
            maps = {name: given.to(backbone.device, backbone.dtype) for name, given in found.items()}
            height, width = height_and_width(batch)
            kept = {name: self.dropping.kept(batch, name) for name in maps}
        if not maps:
            return {}
        size = backbone.latent_shape(height, width)[1:]
        # Images teach no layer over time, in the network as in the encoders.
        over_time = batch is None or batch.num_frames > 1
        return {"spatial": encoded(self.networks.encoders, maps, size, backbone.attend, kept, over_time)}

    def maps_of(self, run: Run, window: Window) -> dict[str, Tensor]:
        """Spatial condition -> its maps (B, c, F, H, W) in the window; the last serves frames beyond the video."""
        frames = [min(max(frame, 0), run.request.num_frames - 1) for frame in window.span]
        device, dtype, videos = run.backbone.device, run.backbone.dtype, len(run.request.videos)
        return {
            name: maps[None, :, frames].expand(videos, -1, -1, -1, -1).to(device, dtype)
            for name, maps in self.given.items()
        }

    @hookimpl
    def refine_condition(self, run: Run, window: Window, condition: Condition) -> Condition:
        """``text`` with the image slot beside it, in both branches, and the frames' histograms where there are some."""
        text = condition["text"]
        guided, unguided = self.slots or self.image_slots(run)
        if "trainer" not in run.config:  # else the image layers learn, and every batch shows other images
            self.slots = guided, unguided
        fill = self.no_text if run.request.textless else self.text
        shown = guided_text(text, fill) if run.batch is None else self.trained_text(text, run.batch)
        beside = PerFrameText.beside if "trainer" in run.config else self.tables.beside
        cond = with_image(shown, guided, self.name, beside)
        uncond = with_image(text.uncond, unguided, self.name, beside)
        histogram = self.maps_of(run, window).get(HISTOGRAM)
        if histogram is not None:
            assert self.networks.histogram is not None
            tokens = self.networks.histogram(histogram[..., 0, 0].transpose(1, 2))
            cond, uncond = (with_frames(branch, tokens, f"{self.name}.{HISTOGRAM}") for branch in (cond, uncond))
        return Condition({**condition, "text": Branches(cond, uncond)})

    def image_slots(self, run: Run) -> tuple[Tensor | None, Tensor | None]:
        """What stands in the image slot with and without guidance, (1 or B, K, D) each; None where it is left out."""
        image = self.networks.image
        if image is None:
            return None, None
        batch, embedding = run.batch, self.embedding
        if batch is not None:  # the user's picture is for what a training draws of itself
            told = is_told(batch, "image")
            embedding = self.image_encoder(run, run.backbone).encode(middle_frames(batch)) if told else None
        if embedding is None:
            empty = empty_image(image, self.no_image)
            return empty, empty
        shown = image(embedding.to(run.backbone.device, run.backbone.dtype))
        if batch is not None:
            shown = shown * self.dropping.kept(batch, "image")[:, None, None].to(shown)
        return shown, shown if self.unguided_image == "same" else empty_image(image, self.unguided_image)

    def trained_text(self, text: Branches, batch: Batch) -> PerFrameText:
        """What the text slot holds while it trains: the captions, but for samples that have none or lose theirs."""
        if not is_told(batch, "text"):
            shown = guided_text(text, self.no_text)
        else:
            shown = with_negative(text, guided_text(text, self.text), self.dropping.made_negative(batch))
        return without_text(shown, self.dropping.kept(batch, "text"))

    def prepared(self, run: Run, parts: Sequence[Mapping[str, Any]]) -> Prepared:
        """What the network is told in every step of a window; the conditions of its branches are stacked."""
        frames = parts[0]["text"].index.shape[1]
        content = self.branch == "content" or (self.branch == "auto" and frames == 1)
        stem = time = None
        if "spatial" in parts[0]:
            assert self.networks.stem is not None
            channels = torch.cat([part["spatial"] for part in parts])
            stem = self.networks.stem(channels.transpose(1, 2).flatten(0, 1))
        if self.networks.fps is not None:
            backbone = run.backbone
            fps = torch.tensor([run.request.fps], device=backbone.device)
            time = self.networks.fps(backbone.denoiser.time_proj(fps).to(backbone.dtype))
        return Prepared(content, stem, time)

    @hookimpl
    def finish_frames(self, blocks: Iterator[FrameBlock]) -> Iterator[FrameBlock] | None:
        """The frames refined, where weights are given."""
        return None if self.refinement is None else self.refinement.refined(blocks)

    # --------------------------------------------------------------------------------------------- training

    @hookimpl
    def check_data(self, run: Run, source: Source) -> None:
        """Refuse the latent cache, and a condition that nothing in the data would teach."""
        check_pixels(run, self.name)
        check_brought(self.trained_conditions, extras_of(source))

    @hookimpl(claims=("denoiser", "image", "fps", "encoders", "stem"))
    def trainable(self, run: Run, backbone: Backbone) -> dict[str, Tensor]:
        """The image layers, the encoders of the conditions that are trained, and the parts of the U-Net that
        ``trainer.trainable`` names: all, as published."""
        wanted = PARTS[run.config["trainer"]["trainable"]]
        learnt = [
            "image.",
            "fps.",
            *(f"encoders.{name}." for name in self.trained_conditions),
            *["stem."][: len(self.trained_conditions)],
        ]
        own = {name: p for name, p in self.networks.named_parameters() if name.startswith(tuple(learnt))}
        base = backbone.denoiser.named_parameters()
        return own | {f"{DENOISER}{name}": parameter for name, parameter in base if wanted(name)}

    @hookimpl
    def losses(self, run: Run, batch: Batch, prediction: Any) -> dict[str, Tensor]:
        """``coherence``, weighted, of videos; images have none."""
        if not self.coherence_weight or batch.num_frames == 1:
            return {}
        found = temporal_coherence(prediction.output, prediction.target, self.coherence)
        return {"coherence": self.coherence_weight * found.mean()}


def is_told(batch: Batch, condition: str) -> bool:
    """Whether the samples of a batch are trained under a condition; what no mixture restricts is under all."""
    return batch.told is None or condition in batch.told


PUBLISHED_ENCODER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""The image encoder of the released weights."""
