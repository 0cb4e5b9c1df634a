"""Video Diffusion Models, Make-A-Video and VideoLDM as inflations: how they begin, what mixes frames, what trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from vidgen_moving_shapes.captions import clip_caption
from vidgen_moving_shapes.combinations import TRAINING_COMBINATIONS
from vidgen_moving_shapes.world import draw_scene
from vidgen_tune_a_video.inflation import Inflation
from vidgen_tune_a_video.inflations import INFLATIONS
from vidgen_tune_a_video.method import build
from vidgen_tune_a_video.video_ldm import Mixed

from vidgen_core import api
from vidgen_core.conditioning import Condition, PerFrameText
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.models.tuned import BASE
from vidgen_core.models.unet2d import ImageBackbone
from vidgen_core.run import batches_of
from vidgen_core.testing import make_run, request
from vidgen_core.training.learner import choose_trainables
from vidgen_core.video_writer import VideoWriter

T = torch.tensor(500)
KINDS = list(INFLATIONS)


def image_model(seed: int = 0) -> ImageBackbone:
    """The tiny image model, with no parameter left at a special value."""
    backbone = tiny.build_image(seed=seed)
    shake(backbone.denoiser, seed=seed, by=0.05)
    return backbone


def shake(module: nn.Module, seed: int = 0, by: float = 0.3) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)


@contextmanager
def inflated(backbone: ImageBackbone, method: Inflation, tuned: Path | None = None, **asked: Any) -> Iterator[Any]:
    """The run of one method, inside its surgery."""
    run = make_run(request(**asked), {"tune_a_video": method}, {"tuned": tuned, "trainer": {"trainable": "all"}})
    run.backbone = backbone
    with backbone.attention_installed("sdpa"), run.moments.attach(run=run, backbone=backbone):
        yield run


def predicted(backbone: ImageBackbone, latents: Tensor) -> Tensor:
    texts = torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(0))
    text = PerFrameText(texts, torch.zeros(len(latents), latents.shape[2], dtype=torch.long))
    return backbone.predict(latents, T, backbone.prepare(Condition(text=text), ["cond"]))


def images(backbone: ImageBackbone, latents: Tensor) -> Tensor:
    """What the image model makes of all frames, as so many images."""
    with backbone.attention_installed("sdpa"):
        return predicted(backbone, latents)


def noise(frames: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, 4, frames, 8, 8, generator=torch.Generator().manual_seed(frames))


def temporal_layers(backbone: ImageBackbone) -> list[nn.Module]:
    return [module for name, module in backbone.denoiser.named_modules() if name.endswith(".temporal")]


def temporal_names(backbone: ImageBackbone) -> set[str]:
    return {name for name, _ in backbone.denoiser.named_parameters() if ".temporal." in name}


# ------------------------------------------------------------------------------------------------- the start


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [1, 2, 5])
@torch.no_grad()
def test_a_fresh_model_is_the_image_model_on_every_frame(kind: str, frames: int) -> None:
    backbone, latents = image_model(), noise(frames, batch=2)
    alone = torch.cat([images(backbone, frame) for frame in latents.split(1, dim=2)], dim=2)
    with inflated(backbone, build(kind)):
        assert torch.allclose(predicted(backbone, latents), alone, atol=2e-6 * float(alone.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_image_models_names_stay_and_the_network_is_itself_again_afterwards(kind: str) -> None:
    backbone = image_model()
    before, expected = backbone.denoiser.state_dict(), images(backbone, noise(2))
    with inflated(backbone, build(kind)):
        inside = set(backbone.denoiser.state_dict())
        assert before.keys() < inside and inside - before.keys() == temporal_names(backbone)
        for layer in temporal_layers(backbone):
            shake(layer)
        assert not torch.allclose(predicted(backbone, noise(2)), expected, atol=1e-3)
    assert backbone.denoiser.state_dict().keys() == before.keys()
    assert torch.equal(images(backbone, noise(2)), expected)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_trained_layers_let_every_frame_see_the_others(kind: str) -> None:
    backbone, latents = image_model(), noise(3)
    other = latents.clone()
    other[:, :, 1] += 1
    with inflated(backbone, build(kind)):
        for layer in temporal_layers(backbone):
            shake(layer)
        moved = (predicted(backbone, other) - predicted(backbone, latents)).abs().amax(dim=(0, 1, 3, 4))
    assert (moved > 1e-4).all()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_without_temporal_layers_it_is_the_image_model_bit_for_bit(kind: str) -> None:
    backbone, latents = image_model(), noise(3, batch=2)
    expected = images(backbone, latents)
    with inflated(backbone, build(kind, temporal=False)):
        assert torch.equal(predicted(backbone, latents), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_layers_depend_on_the_seed_alone(kind: str) -> None:
    def drawn(seed: int) -> list[Tensor]:
        backbone = image_model()
        with inflated(backbone, build(kind), seed=seed):
            return [parameter for layer in temporal_layers(backbone) for parameter in layer.parameters()]

    torch.manual_seed(0)
    first, state = drawn(1), torch.random.get_rng_state()
    assert all(map(torch.equal, first, drawn(1)))
    assert not all(map(torch.equal, first, drawn(2)))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("kind", [*KINDS, "st_attention"])
def test_nothing_is_clipped_and_the_grid_ends_at_one_though_the_checkpoint_says_neither(kind: str) -> None:
    backbone = image_model()
    own = {"_class_name": "PNDMScheduler", "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    backbone.scheduler_config = dict(own)
    given = {"invert": "none"} if kind == "st_attention" else {}
    with inflated(backbone, build(kind, **given)) as run:
        run.config = {**run.config, "scheduler": {"name": "DDIMScheduler"}}
        assert run.make_scheduler().config.clip_sample is False
        assert run.timesteps(run.make_scheduler())[-1] == 1
        run.config = {**run.config, "scheduler": {"name": "DDIMScheduler", "options": {"clip_sample": True}}}
        assert run.make_scheduler().config.clip_sample is True  # a user has the last word
        assert backbone.scheduler_config == own
    assert backbone.sampling_config == own


@pytest.mark.parametrize(("invert", "spacing"), [("empty", "leading"), ("none", "trailing")])
def test_a_grid_that_begins_in_pure_noise_is_changed_for_an_inversion_alone(invert: str, spacing: str) -> None:
    backbone = image_model()
    backbone.scheduler_config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    with inflated(backbone, build("st_attention", invert=invert)) as run:
        assert run.make_scheduler().config.timestep_spacing == spacing


@pytest.mark.parametrize("kind", [*KINDS, "st_attention"])
@torch.no_grad()
def test_a_model_that_asks_for_single_precision_has_it_between_frames_too(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, seen = F.scaled_dot_product_attention, []

    def watched(q: Tensor, *others: Tensor, **options: Any) -> Tensor:
        seen.append((q.dtype, torch.is_autocast_enabled("cpu")))
        return kernel(q, *others, **options)

    backbone = image_model()
    config = dict(backbone.denoiser.config) | {"upcast_attention": True, "_use_default_values": []}
    backbone.denoiser = UNet2DConditionModel.from_config(config)
    with inflated(backbone, build(kind)), torch.autocast("cpu", dtype=torch.bfloat16):
        monkeypatch.setattr(F, "scaled_dot_product_attention", watched)
        predicted(backbone, noise(3))
    assert set(seen) == {(torch.float32, False)}


# ---------------------------------------------------------------------------------------------- what trains


@pytest.mark.parametrize("kind", ["video_ldm", "make_a_video"])
def test_only_temporal_layers_train_and_a_step_leaves_the_image_model_as_it_is(kind: str) -> None:
    backbone = image_model()
    before = {name: tensor.clone() for name, tensor in backbone.denoiser.state_dict().items()}
    with inflated(backbone, build(kind)) as run:
        trainables = choose_trainables(run)
        learns = {name for name, p in backbone.denoiser.named_parameters() if p.requires_grad}
        assert learns == temporal_names(backbone) == {name.removeprefix("denoiser.") for name in trainables}
        optimiser = torch.optim.AdamW(trainables.values(), lr=1e-2, weight_decay=0.1)
        predicted(backbone, noise(3)).square().mean().backward()
        optimiser.step()
        assert all(torch.equal(backbone.denoiser.state_dict()[name], tensor) for name, tensor in before.items())


def test_all_of_a_video_diffusion_model_trains() -> None:
    backbone = image_model()
    with inflated(backbone, build("vdm")) as run:
        choose_trainables(run)
        assert all(parameter.requires_grad for parameter in backbone.denoiser.parameters())


LAST = {"to_out.0.weight", "to_out.0.bias"}
LEARNS_FIRST = {  # what begins at zero behind something that does not, and what begins at no zero
    "vdm": {"to_out.weight", "to_out.bias"},
    "make_a_video": LAST | {"conv.weight", "conv.bias", "linear_2.weight", "linear_2.bias"},
    "video_ldm": LAST | {"conv2.weight", "conv2.bias"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_first_step_zeros_let_gradients_no_deeper_than_themselves(kind: str) -> None:
    backbone = image_model()
    with inflated(backbone, build(kind)) as run:
        choose_trainables(run)
        predicted(backbone, noise(3)).square().mean().backward()
        for name in temporal_names(backbone):
            gradient = backbone.denoiser.get_parameter(name).grad
            assert gradient is not None and bool(gradient.any()) == name.endswith(tuple(LEARNS_FIRST[kind])), name


# ------------------------------------------------------------------------------------------ what is put where


def test_a_convolution_in_time_follows_every_convolution_that_sees_neighbours_in_space() -> None:
    backbone = image_model()
    with inflated(backbone, build("make_a_video")):
        for name, module in backbone.denoiser.named_modules():
            if isinstance(module, nn.Conv2d):
                assert hasattr(module, "temporal") == (module.kernel_size == (3, 3)), name


@torch.no_grad()
def test_the_frame_rate_conditions_once_it_is_learnt() -> None:
    def at(fps: int, learnt: bool) -> Tensor:
        backbone = image_model()
        with inflated(backbone, build("make_a_video"), fps=fps):
            if learnt:
                shake(backbone.denoiser.time_embedding.temporal)
            return predicted(backbone, noise(2))

    assert torch.equal(at(4, learnt=False), at(30, learnt=False))
    assert not torch.allclose(at(4, learnt=True), at(30, learnt=True), atol=1e-3)


def test_every_layer_has_an_alpha_of_its_own_that_is_a_half_at_first() -> None:
    backbone = image_model()
    with inflated(backbone, build("video_ldm")):
        layers = temporal_layers(backbone)
        assert len({layer.a for layer in layers}) == len(layers) == 8 + 4  # residual blocks and transformers
        assert all(isinstance(layer, Mixed) and layer.a.shape == () and layer.alpha == 0.5 for layer in layers)


@torch.no_grad()
def test_images_are_a_matter_of_training() -> None:
    backbone = image_model()
    with inflated(backbone, build("vdm", images=2)) as run:
        (layer, *_) = temporal_layers(backbone)
        assert torch.isfinite(layer.added(4)).all()
        run.batch = object()
        assert layer.added(4).isinf().sum() == layer.heads * (12 - 2)


# ----------------------------------------------------------------------------------------------- tuned weights


def learnt(kind: str, file: Path, base: str = "") -> Path:
    """A file of what an inflation has learnt on the image model of seed 0."""
    backbone = image_model()
    with inflated(backbone, build(kind)) as run:
        for layer in temporal_layers(backbone):
            shake(layer)
        tensors = {name: tensor.detach().clone() for name, tensor in choose_trainables(run).items()}
    save_file(tensors, file, {BASE: base})
    return file


@torch.no_grad()
def test_what_video_ldm_learnt_goes_with_another_fine_tune_of_the_image_model(tmp_path: Path) -> None:
    file, other = learnt("video_ldm", tmp_path / "phi.safetensors", base="the first"), image_model(seed=1)
    other.weights = {"unet/weights": "another"}
    expected = images(other, noise(3))
    with inflated(other, build("video_ldm"), tuned=file):
        with_phi = predicted(other, noise(3))
    with inflated(other, build("video_ldm", temporal=False), tuned=file):
        assert torch.equal(predicted(other, noise(3)), expected)
    assert torch.isfinite(with_phi).all() and not torch.allclose(with_phi, expected, atol=1e-3)


@torch.no_grad()
def test_what_belongs_to_another_model_or_inflation_is_refused(tmp_path: Path) -> None:
    backbone = image_model()
    backbone.weights = {"unet/weights": "another"}
    file = learnt("make_a_video", tmp_path / "phi.safetensors", base="the first")
    with pytest.raises(BadRequest, match="tuned on another model"), inflated(backbone, build("make_a_video"), file):
        pass
    with pytest.raises(BadRequest, match="inflation=video_ldm"), inflated(backbone, build("video_ldm"), file):
        pass


@torch.no_grad()
def test_a_video_diffusion_model_without_time_is_the_image_model_that_was_trained_with_it(tmp_path: Path) -> None:
    file, backbone = learnt("vdm", tmp_path / "all.safetensors"), image_model(seed=1)
    with inflated(backbone, build("vdm", temporal=False), tuned=file):
        assert torch.equal(predicted(backbone, noise(2)), images(image_model(), noise(2)))


def prepared(inflation: str, *options: str) -> list[Any]:
    chosen = ["method=tune_a_video", f"tune_a_video.inflation={inflation}", "model=moving_shapes_image"]
    return list(batches_of(compose([*chosen, *options])))


def test_only_what_the_user_wrote_must_be_an_option_of_the_inflation() -> None:
    assert prepared("vdm")  # although this model brings options for edits
    with pytest.raises(BadRequest, match=r"tune_a_video.stride is no option of inflation=vdm"):
        prepared("vdm", "tune_a_video.stride=2")
    with pytest.raises(BadRequest, match=r"tune_a_video.reach is no option of inflation=st_attention"):
        prepared("st_attention", "tune_a_video.reach=3")


def test_what_cannot_be_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="edits none: data=folder"):
        make_run(request(video="clip.mp4"), {"tune_a_video": build("vdm")})
    with (
        inflated(image_model(), build("video_ldm", temporal=False)) as run,
        pytest.raises(BadRequest, match="leaves out what trains"),
    ):
        choose_trainables(run)


# --------------------------------------------------------------------------------------------------- trainings


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of Moving Shapes with their captions."""
    folder = tmp_path_factory.mktemp("clips")
    for number, combination in enumerate(TRAINING_COMBINATIONS[:2]):
        writer = VideoWriter(folder / f"{number}.mp4", fps=8)
        writer.write(draw_scene(np.random.default_rng(number), *combination, frames=8).frames())
        writer.close()
        (folder / f"{number}.txt").write_text(clip_caption(*combination))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_steps_on_a_folder_of_videos_leave_what_trained_and_it_samples(
    kind: str, clips: Path, tmp_path: Path
) -> None:
    wanted = {"method": "tune_a_video", "tune_a_video.inflation": kind, "model": "tiny_image", "num_frames": 4}
    wanted |= {"data": "folder", "data.path": clips, "data.frames": 4, "data.size": 64, "height": 64, "width": 64}
    wanted |= {"trainer.max_steps": 2, "trainer.learning_rate": 1e-2, "trainer.workers": 0}
    api.train(**wanted, **{"output.dir": tmp_path / "run"})
    assert not (tmp_path / "run" / "model").exists()
    written = load_file(tmp_path / "run" / "methods" / "tune_a_video.safetensors")
    backbone = tiny.build_image()
    with inflated(backbone, build(kind)) as run:
        trained = choose_trainables(run)
        assert written.keys() == trained.keys()
        assert any(not torch.equal(written[name], fresh) for name, fresh in trained.items())
    sampled = api.generate(
        method="tune_a_video", tuned=tmp_path / "run", prompt="a", **{"output.dir": tmp_path / "made"}
    )
    assert sampled.frames.shape == (4, 64, 64, 3)


def test_a_training_refuses_what_its_inflation_cannot_use(clips: Path, tmp_path: Path) -> None:
    wanted = {"method": "tune_a_video", "tune_a_video.inflation": "vdm", "model": "tiny_image", "data": "folder"}
    wanted |= {"data.path": clips, "trainer.max_steps": 1, "output.dir": tmp_path / "run"}
    with pytest.raises(BadRequest, match="strength is no option of inflation=vdm"):
        api.train(**wanted, **{"tune_a_video.strength": 0.5})
    with pytest.raises(BadRequest, match="edits none"):
        api.train(**wanted, video=clips / "0.mp4")
