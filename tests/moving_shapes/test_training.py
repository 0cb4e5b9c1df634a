"""The pieces of the training do what the recipes rely on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from vidgen_moving_shapes.captions import clip_caption, merged_caption
from vidgen_moving_shapes.combinations import COMBINATIONS
from vidgen_moving_shapes.tokenizer import MAX_LENGTH, UNKNOWN, build_tokenizer
from vidgen_moving_shapes.training import text_to_image
from vidgen_moving_shapes.training.autoencoder import (
    LATENT_DEVIATION,
    build_autoencoder,
    draw_images,
    fold_statistics,
)
from vidgen_moving_shapes.training.clips import draw_batch
from vidgen_moving_shapes.training.diffusion import build_scheduler
from vidgen_moving_shapes.training.progress import AveragedWeights, learning_rate_factor, write_folder
from vidgen_moving_shapes.training.text import WIDTH
from vidgen_moving_shapes.training.text_to_video import draw_timesteps
from vidgen_moving_shapes.training.video_model import FrameText, build_unet


def test_the_tokenizer_knows_every_caption() -> None:
    tokenizer = build_tokenizer()
    captions = [clip_caption(*combination) for combination in COMBINATIONS]
    tokens = tokenizer([merged_caption(captions[:4]), *captions], padding="max_length", max_length=MAX_LENGTH)
    assert not any(tokenizer.convert_tokens_to_ids(UNKNOWN) in row for row in tokens.input_ids)
    assert all(len(row) == MAX_LENGTH for row in tokens.input_ids)


def test_the_last_timestep_is_pure_noise() -> None:
    assert build_scheduler().alphas_cumprod[-1] == 0


def test_half_of_the_timesteps_are_of_high_noise() -> None:
    steps = draw_timesteps(1000)
    assert steps.min() >= 0 and steps.max() == 999
    assert 0.5 < (steps >= 800).float().mean() < 0.75


def test_folding_gives_latents_one_deviation_and_keeps_the_decoding() -> None:
    torch.manual_seed(0)
    model = build_autoencoder().eval()
    images = draw_images(np.random.default_rng(0), 32)
    with torch.no_grad():
        before = model.decode(model.encode(images).latent_dist.mean).sample
        fold_statistics(model, images)
        latents = model.encode(images).latent_dist.mean
        after = model.decode(latents).sample
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert latents.std(dim=(0, 2, 3)).numpy() == pytest.approx(LATENT_DEVIATION, abs=1e-3)
    assert torch.allclose(before, after, atol=1e-4)


@pytest.fixture(scope="module")
def image_unet() -> torch.nn.Module:
    torch.manual_seed(0)
    return text_to_image.build_unet().eval()


def test_the_video_model_starts_as_the_image_model(image_unet: torch.nn.Module) -> None:
    video_unet = build_unet(image_unet).eval()
    latents, text, step = torch.randn(1, 4, 3, 16, 16), torch.randn(1, 8, WIDTH), torch.tensor([500])
    with torch.no_grad():
        clip = video_unet(latents, step, text).sample[0].transpose(0, 1)
        stills = image_unet(latents[0].transpose(0, 1), step, text.expand(3, -1, -1)).sample
    assert torch.allclose(clip, stills, atol=1e-4)


def test_every_frame_reads_its_own_text(image_unet: torch.nn.Module) -> None:
    video_unet = build_unet(image_unet).eval()
    frame_text = FrameText(video_unet)
    latents, texts, step = torch.randn(1, 4, 2, 16, 16), torch.randn(2, 8, WIDTH), torch.tensor([500])
    with torch.no_grad():
        alone = [video_unet(latents, step, text[None]).sample for text in texts]
        frame_text.text = texts
        together = video_unet(latents, step, texts[:1]).sample
    assert torch.allclose(together[:, :, 0], alone[0][:, :, 0], atol=1e-4)
    assert torch.allclose(together[:, :, 1], alone[1][:, :, 1], atol=1e-4)


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.6, 1.0])
def test_the_clips_of_a_batch_are_alike_in_length(progress: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        clips = draw_batch(rng, progress)
        assert len({len(clip.frames) for clip in clips}) == 1
        assert all(clip.path.shape == (len(clip.frames), 3) for clip in clips)
        assert all(len(clip.frames) % len(clip.captions) == 0 for clip in clips)


def test_the_learning_rate_warms_up_and_falls() -> None:
    assert learning_rate_factor(0, 0.0) < learning_rate_factor(200, 0.0) == 1.0
    assert learning_rate_factor(5000, 1.0) == pytest.approx(0.03)


def test_averaged_weights_follow() -> None:
    layer = torch.nn.Linear(1, 1)
    average = AveragedWeights(layer, 0.9)
    torch.nn.init.constant_(layer.weight, 5.0)
    for _ in range(100):
        average.update()
    assert average.state["weight"].item() == pytest.approx(5.0, abs=0.01)


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    write_folder(target, lambda folder: (folder / "old").touch())
    write_folder(target, lambda folder: (folder / "new").touch())
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in target.iterdir()] == ["new"]
