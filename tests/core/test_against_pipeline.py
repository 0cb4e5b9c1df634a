"""The plain model equals diffusers' own text-to-video pipeline: same prompt, weights, noise, steps and scheduler."""

from __future__ import annotations

import warnings

import diffusers
import pytest
import torch
from vidgen_talc.method import build

from vidgen_core import hookimpl
from vidgen_core.models import tiny
from vidgen_core.testing import latents, request, video

NOISE = torch.randn(1, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
WANTED = {"num_frames": 4, "height": 32, "width": 32, "num_inference_steps": 3, "guidance_scale": 7.5}


class Given:
    @hookimpl
    def start_latents(self):
        return NOISE


@pytest.fixture(scope="module")
def pipeline():
    if not hasattr(diffusers, "TextToVideoSDPipeline"):
        pytest.skip("this diffusers has no TextToVideoSDPipeline any more")
    model = tiny.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = diffusers.DDIMScheduler.from_config(dict(tiny.SCHEDULER))
        pipe = diffusers.TextToVideoSDPipeline(
            model.vae, model.text_encoder, model.tokenizer, model.denoiser, scheduler
        )
    pipe.set_progress_bar_config(disable=True)
    return lambda kind: pipe("a dog", negative_prompt="dark", latents=NOISE, output_type=kind, **WANTED).frames


@pytest.mark.parametrize("methods", [{}, {"talc": build()}], ids=["plain", "one scene"])
def test_latents_and_frames_equal_the_pipelines(pipeline, methods) -> None:
    wanted = request("a dog", negative=("dark",), **WANTED)
    (window,) = latents(wanted, {**methods, "given": Given()})
    expected = pipeline("latent")
    assert (window.latents - expected).abs().max() <= 1e-5 * expected.abs().max()
    frames = video(wanted, {**methods, "given": Given()})
    assert torch.allclose(frames, pipeline("pt").cpu(), atol=1e-4)
