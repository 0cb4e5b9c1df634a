"""Every stage of ``experiment=moving_shapes`` trains by the public command, from the result of the stage before it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPModel
from vidgen_moving_shapes import scores
from vidgen_moving_shapes.training import clips
from vidgen_moving_shapes.training.autoencoder import LATENT_DEVIATION
from vidgen_moving_shapes.training.frame_heads import PlaceHeads
from vidgen_moving_shapes.training.images import Images

import vidgen_core as vg
from vidgen_core.config import compose
from vidgen_core.data.pixels import to_model_range
from vidgen_core.data.sample import draw_of
from vidgen_core.experiments import stages_of
from vidgen_core.models import tiny, unet2d
from vidgen_core.train import train

TINY = {
    "trainer.max_steps": 2,
    "trainer.warmup": 0,
    "trainer.workers": 0,
    "trainer.validate_every": 0,
    "trainer.mixed_precision": "no",
    "trainer.ema": 0.0,
    "placement.device": "cpu",
}


SHIPPED = "pkg://vidgen_moving_shapes/weights/text_to_video"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("moving_shapes")


def trained(root: Path, stage: str, **changes) -> Path:
    """The folder of a stage after two steps; its other values are those of the experiment file."""
    values = TINY | {"trainer.batch_size": 4} | {key.replace("__", "."): value for key, value in changes.items()}
    if stage in ("video", "talc"):
        del values["trainer.batch_size"]
    arguments = ["experiment=moving_shapes", f"stages=[{stage}]", f"output.dir={root}"]
    (found,) = stages_of([*arguments, *(f"{key}={value}" for key, value in values.items())], "train")
    train(compose(found.overrides, found.values, entry="train"))
    assert found.folder is not None
    return found.folder


def losses(folder: Path) -> dict[str, float]:
    """The last line of the log."""
    return json.loads((folder / "log.jsonl").read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def autoencoder(root: Path) -> Path:
    return trained(root, "autoencoder")


@pytest.fixture(scope="module")
def text_to_image(root: Path, autoencoder: Path) -> Path:
    return trained(root, "text_to_image", trainer__sample_every=2, num_inference_steps=2)


@pytest.fixture(scope="module")
def depth_to_image(root: Path, text_to_image: Path) -> Path:
    return trained(root, "depth_to_image", trainer__sample_every=2, num_inference_steps=2)


@pytest.fixture(scope="module")
def image_encoder(root: Path) -> Path:
    return trained(root, "image_encoder")


def test_the_autoencoder_leaves_latents_of_one_deviation(autoencoder: Path) -> None:
    from diffusers import AutoencoderKL

    assert {"reconstruction", "alignment", "information"} < losses(autoencoder).keys()
    vae = AutoencoderKL.from_pretrained(autoencoder / "model", subfolder="vae").float()
    draw = draw_of(7, 0, 0, accumulation=1, processes=1, batch_size=128, steps=10, seed=3)
    frames = torch.cat([sample.frames for sample in Images("all").draw(draw).samples])
    with torch.no_grad():
        latents = vae.encode(to_model_range(frames)).latent_dist.mean
    assert latents.std(dim=(0, 2, 3)).numpy() == pytest.approx(LATENT_DEVIATION, rel=0.2)


def test_the_text_to_image_model_stands_on_the_autoencoder(autoencoder: Path, text_to_image: Path) -> None:
    vae = "model/vae/diffusion_pytorch_model.safetensors"
    before, after = load_file(autoencoder / vae), load_file(text_to_image / vae)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_training_of_images_shows_samples(text_to_image: Path, depth_to_image: Path) -> None:
    for folder in (text_to_image, depth_to_image):
        assert [file.name for file in (folder / "samples").iterdir()] == ["step_00000002_000.png"]


def test_the_result_makes_one_picture(text_to_image: Path, tmp_path: Path) -> None:
    made = vg.generate(
        prompt="a red circle on a white background",
        num_inference_steps=2,
        model="moving_shapes_image",
        **{"model.path": str(text_to_image / "model"), "output.dir": str(tmp_path / "out"), "output.frames": True},
    )
    assert made.frames.shape == (1, 64, 64, 3)
    assert (tmp_path / "out" / "frames" / "00000.png").is_file()


def test_the_depth_model_begins_as_the_image_model_and_reads_a_fifth_channel(
    text_to_image: Path, depth_to_image: Path
) -> None:
    from vidgen_moving_shapes.training.depth_to_image import with_depth_channel

    image, fresh = unet2d.load(str(text_to_image / "model")), with_depth_channel(str(text_to_image / "model"))
    latents, depth, text = torch.randn(1, 4, 16, 16), torch.randn(1, 1, 16, 16), torch.randn(1, 8, 64)
    with torch.no_grad():
        wanted = image.denoiser(latents, 500, text).sample
        assert torch.allclose(fresh.denoiser(torch.cat([latents, depth], 1), 500, text).sample, wanted, atol=1e-5)
    trained_model = unet2d.load(str(depth_to_image / "model"))
    assert trained_model.reads == {"text", "channels"}
    assert trained_model.denoiser.conv_in.weight[:, 4].abs().max() > 0


@pytest.fixture(scope="module")
def video(root: Path, text_to_image: Path) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(clips, "FEW_FRAMES", 16)
        return trained(root, "video", trainer__sample_every=0)


def test_the_video_model_starts_from_the_image_model(video: Path) -> None:
    unet = load_file(video / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    assert any("temp_convs" in name for name in unet)


def test_stories_tune_the_video_model_and_leave_its_text_encoder(
    root: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "MOST_STORY_FRAMES", 12)
    monkeypatch.setattr(clips, "FEW_FRAMES", 12)
    monkeypatch.setattr(clips, "STORY_SCENES", (2,))
    folder = trained(root, "talc", trainer__sample_every=0, model__path=video / "model")
    assert {"denoising", "path", "identity"} < losses(folder).keys()
    text = "model/text_encoder/model.safetensors"
    before, after = load_file(video / text), load_file(folder / text)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_story_says_of_every_frame_what_it_shows() -> None:
    story = clips.Clips("stories").draw(draw_of(1, 0, 0, accumulation=1, processes=1, batch_size=1, steps=9, seed=0))
    sample = story.samples[0]
    identity = sample.extra["identity"]
    assert identity.shape == (sum(sample.scene_frames), 10)
    assert (identity[:, 3:7].sum(1) == 1).all()
    corner = to_model_range(sample.frames)[:, :, 0, 0]
    assert torch.allclose(corner, identity[:, 7:], atol=0.02)


def test_the_image_encoder_is_a_clip_of_transformers_own_layout(image_encoder: Path) -> None:
    assert "contrastive" in losses(image_encoder)
    clip = CLIPModel.from_pretrained(image_encoder / "model").float()
    tokenizer = AutoTokenizer.from_pretrained(image_encoder / "model")
    tokens = tokenizer(["a red circle on a white background", "it grows"], padding=True, return_tensors="pt")
    with torch.no_grad():
        out = clip(input_ids=tokens.input_ids, pixel_values=torch.zeros(3, 3, 64, 64))
    assert out.logits_per_image.shape == (3, 2)


def test_the_same_seed_gives_the_same_weights(root: Path, image_encoder: Path, tmp_path: Path) -> None:
    again = trained(tmp_path, "image_encoder")
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (image_encoder, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_heads_begin_with_nothing_whatever_was_drawn_before() -> None:
    parameters = list(PlaceHeads(tiny.build().denoiser).parameters())
    assert len(parameters) == 6
    assert not any(p.any() for p in parameters)


@pytest.fixture(scope="module")
def cam(root: Path) -> Path:
    return trained(
        root, "cam", model__path=SHIPPED, trainer__max_steps=1, trainer__batch_size=1, trainer__sample_every=0
    )


def learnt(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "methods" / "streaming.safetensors")


def test_the_video_model_learns_to_continue_under_heads_that_ask_what_its_frames_show(cam: Path) -> None:
    assert {"denoising", "place", "identity"} < losses(cam).keys()
    assert {name.partition(".")[0] for name in learnt(cam)} == {"cam", "mergers"}  # anew, without what the package has
    assert 0 < learnt(cam)["mergers.mid.proj_out.weight"].abs().max() < 0.01  # one step from nothing


def test_the_anchor_is_learnt_after_the_last_frames_and_beside_them(root: Path, cam: Path) -> None:
    folder = trained(
        root, "apm", model__path=SHIPPED, trainer__max_steps=1, trainer__batch_size=1, trainer__sample_every=0
    )
    assert {"denoising", "place", "identity"} < losses(folder).keys()
    before, after = learnt(cam), learnt(folder)
    assert {name.partition(".")[0] for name in after} == {"cam", "mergers", "resampler", "mixes"}
    assert all(tensor.abs() > 0 for name, tensor in after.items() if name.endswith(".alpha"))
    moved = (after[name] - before[name] for name in before)
    assert 0 < max(float(change.abs().max()) for change in moved) < 0.01  # one step from where CAM's training ended


# ------------------------------------------------------------------------------------------------ scores


def scored(out: Path, *arguments: str) -> dict:
    """The report of ``python -m vidgen_moving_shapes.scores``."""
    assert scores.main([*arguments, "--count", "2", "--out", str(out)]) == 0
    return json.loads((out / f"{arguments[0]}.json").read_text())


def test_a_depth_model_is_scored_on_the_depth_that_it_is_given(depth_to_image: Path, tmp_path: Path) -> None:
    report = scored(tmp_path, "depth_to_image", f"model.path={depth_to_image / 'model'}", "num_inference_steps=1")
    assert report["num_inference_steps"] == 1
    assert report["scores"].keys() == {"training", "held-out", "two objects"}
    assert report["scores"]["held-out"].keys() == {"n", "shape", "colour", "ground", "depth_iou", "all"}
    assert {"front_iou", "back_iou", "back_shape"} < report["scores"]["two objects"].keys()
    assert (tmp_path / "depth_to_image_two_objects.png").is_file()


def test_an_image_encoder_is_scored_by_the_captions_that_it_chooses(image_encoder: Path, tmp_path: Path) -> None:
    report = scored(tmp_path, "image_encoder", "--clip", str(image_encoder / "model"))
    assert report["scores"]["held-out"].keys() == {"n", "shape", "colour", "ground", "all"}
    assert report["scores"]["two objects"].keys() == {"n", "order", "colours"}


def test_the_clip_metrics_take_the_image_encoder(image_encoder: Path) -> None:
    from vidgen_core.metrics import clip

    found = clip.load(str(image_encoder / "model"), device="cpu")
    picture = Images().draw(draw_of(0, 0, 0, accumulation=1, processes=1, batch_size=1, steps=1, seed=0)).samples[0]
    own = found._pictures([picture.frames[0].permute(1, 2, 0).numpy()])
    same = found._model.vision_model(pixel_values=to_model_range(picture.frames)).pooler_output
    same = torch.nn.functional.normalize(found._model.visual_projection(same), dim=-1)
    assert torch.allclose(own, same, atol=1e-4)
