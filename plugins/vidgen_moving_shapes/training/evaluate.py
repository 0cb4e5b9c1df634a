"""Score a pipeline folder by the oracle: DDIM with classifier-free guidance, on training and held-out combinations."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNet3DConditionModel
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel

from vidgen_moving_shapes import oracle
from vidgen_moving_shapes.captions import clip_caption, image_caption
from vidgen_moving_shapes.combinations import HELD_OUT_COMBINATIONS, TRAINING_COMBINATIONS, Combination
from vidgen_moving_shapes.motions import MOTIONS
from vidgen_moving_shapes.stories import draw_story
from vidgen_moving_shapes.training.text import encode_captions
from vidgen_moving_shapes.training.video_model import FrameText
from vidgen_moving_shapes.world import CLIP_FRAMES

ATTRIBUTES = ("shape", "colour", "ground", "motion")
LATENT = (4, 16, 16)


class Sampler:
    """Samples clips, or single frames where the folder holds an image model."""

    def __init__(self, folder: Path, steps: int, guidance: float) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(folder, subfolder="tokenizer")
        self._text_encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder", dtype=torch.float32)
        self._vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float32)
        self._scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
        kind = UNet2DConditionModel.load_config(folder, subfolder="unet")["_class_name"]
        self.makes_videos = kind == UNet3DConditionModel.__name__
        unet_class = UNet3DConditionModel if self.makes_videos else UNet2DConditionModel
        self._unet = unet_class.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32).eval()
        self._frame_text = FrameText(self._unet)
        self._steps, self._guidance = steps, guidance

    @torch.no_grad()
    def __call__(self, scenes: Sequence[Sequence[str]], frames: int, generator: torch.Generator) -> NDArray[np.uint8]:
        """One clip for each sequence of captions, (B, F, CANVAS, CANVAS, 3) uint8; captions share the frames evenly."""
        with torch.autocast("cpu", torch.bfloat16):
            flat = [""] * sum(map(len, scenes)) + [caption for captions in scenes for caption in captions]
            text = encode_captions(self._tokenizer, self._text_encoder, flat)
            size = (len(scenes), LATENT[0], frames, *LATENT[1:]) if self.makes_videos else (len(scenes), *LATENT)
            latents = torch.randn(size, generator=generator)
            several = len(scenes[0])
            if several > 1:
                self._frame_text.text = text.repeat_interleave(frames // several, dim=0)
            self._scheduler.set_timesteps(self._steps)
            for timestep in self._scheduler.timesteps:
                latents = self._step(latents, timestep, text[::several])
            self._frame_text.text = None
            return self._decode(latents)

    def _step(self, latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        velocity = self._unet(torch.cat([latents, latents]), timestep, text).sample.float()
        empty, captioned = velocity.chunk(2)
        return self._scheduler.step(empty + self._guidance * (captioned - empty), timestep, latents).prev_sample

    def _decode(self, latents: Tensor) -> NDArray[np.uint8]:
        stills = latents.transpose(1, 2) if self.makes_videos else latents[:, None]
        pictures = self._vae.decode(stills.flatten(0, 1) / self._vae.config.scaling_factor).sample.float()
        levels = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return levels.permute(0, 2, 3, 1).unflatten(0, (len(latents), -1)).numpy()


def choose(combinations: Sequence[Combination], count: int, seed: int) -> list[Combination]:
    """Random combinations, the motions in turn so that each has an equal share."""
    rng = np.random.default_rng(seed)
    by_motion = [[c for c in combinations if c[1] == motion] for motion in MOTIONS]
    groups = [group for group in by_motion if group]
    return [groups[i % len(groups)][rng.integers(len(groups[i % len(groups)]))] for i in range(count)]


def score(
    sampler: Sampler, combinations: Sequence[Combination], batch: int, seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """Which attributes (N, 4) the oracle reads as captioned, and the clips (N, F, CANVAS, CANVAS, 3)."""
    generator = torch.Generator().manual_seed(seed)
    right, clips = [], []
    for start in range(0, len(combinations), batch):
        chosen = combinations[start : start + batch]
        captions = [
            (clip_caption(entity, motion, ground) if sampler.makes_videos else image_caption(entity, ground),)
            for entity, motion, ground in chosen
        ]
        clips.append(sampler(captions, CLIP_FRAMES, generator))
        for (entity, motion, ground), clip in zip(chosen, clips[-1], strict=True):
            reading = oracle.read(clip)
            wanted = (entity.shape, entity.colour, ground, motion)
            right.append([getattr(reading, name) == value for name, value in zip(ATTRIBUTES, wanted, strict=True)])
    return np.array(right), np.concatenate(clips)


def score_stories(sampler: Sampler, count: int, batch: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """The same for every scene of stories whose motion changes, in which each frame has its scene's caption."""
    rng = np.random.default_rng(seed)
    stories = [draw_story(rng, ["motion"], allowed=TRAINING_COMBINATIONS) for _ in range(count)]
    generator = torch.Generator().manual_seed(seed)
    right, clips = [], []
    for start in range(0, count, batch):
        chosen = stories[start : start + batch]
        clips.append(sampler([[clip_caption(*c) for c in s.combinations] for s in chosen], 2 * CLIP_FRAMES, generator))
        for story, clip in zip(chosen, clips[-1], strict=True):
            for scene, (entity, motion, ground) in zip(np.split(clip, 2), story.combinations, strict=True):
                reading = oracle.read(scene)
                wanted = (entity.shape, entity.colour, ground, motion)
                right.append([getattr(reading, name) == value for name, value in zip(ATTRIBUTES, wanted, strict=True)])
    return np.array(right), np.concatenate(clips)


def report(title: str, right: NDArray[np.bool_]) -> str:
    shares = [f"{name} {share:.3f}" for name, share in zip(ATTRIBUTES, right.mean(axis=0), strict=True)]
    return f"{title} (n = {len(right)}): {', '.join(shares)}, all {right.all(axis=1).mean():.3f}"


def write_sheet(path: Path, clips: NDArray[np.uint8], columns: int = 8) -> None:
    """A contact sheet: a clip a row, evenly spaced frames."""
    moments = np.linspace(0, clips.shape[1] - 1, min(columns, clips.shape[1])).round().astype(int)
    rows = [np.concatenate(list(clip[moments]), axis=1) for clip in clips]
    Image.fromarray(np.concatenate(rows)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="pipeline folder")
    parser.add_argument("--clips", type=int, default=56, help="clips of training and of held-out combinations each")
    parser.add_argument("--stories", type=int, default=0, help="stories of two scenes, one text a frame")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--batch", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets")
    options = parser.parse_args()
    sampler = Sampler(options.folder, options.steps, options.guidance)
    results = {
        name: score(sampler, choose(list(combinations), options.clips, options.seed), options.batch, options.seed)
        for name, combinations in (("training", TRAINING_COMBINATIONS), ("held-out", sorted_held_out()))
    }
    if options.stories:
        results["stories"] = score_stories(sampler, options.stories, options.batch, options.seed)
    for name, (right, clips) in results.items():
        print(report(name, right), flush=True)
        if options.sheets:
            options.sheets.mkdir(parents=True, exist_ok=True)
            write_sheet(options.sheets / f"{name}.png", clips[:14])


def sorted_held_out() -> list[Combination]:
    """Held-out combinations in an order that does not depend on hashing."""
    return sorted(HELD_OUT_COMBINATIONS, key=str)


if __name__ == "__main__":
    main()
