"""Train the text-to-video model: UNet3DConditionModel and its text encoder, from the text-to-image model.

The motion word is decided at high noise (at low noise the frames show the motion), so half of the timesteps are
drawn there, some of them at pure noise, where the caption alone tells where the object is in each frame. The path
heads teach the network to read the word and the position of a frame together, see README.md for what they change.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidgen_moving_shapes.training.clips import draw_batch
from vidgen_moving_shapes.training.diffusion import STEPS
from vidgen_moving_shapes.training.motion_probe import MotionProbe
from vidgen_moving_shapes.training.path_heads import PathHeads
from vidgen_moving_shapes.training.pipeline_folder import write_pipeline
from vidgen_moving_shapes.training.progress import (
    AveragedWeights,
    Budget,
    learning_rate_factor,
    log,
    write_checkpoint,
    write_folder,
)
from vidgen_moving_shapes.training.video_model import VideoModel, is_temporal

PURE_NOISE_SHARE, HIGH_NOISE_SHARE = 0.12, 0.43
HIGH_NOISE = 800
PATH_WEIGHT = 1.0
"""At 0.2, and a learning rate of 4e-4 for the text, the word was still not read after 250 steps."""
MEASURES = ("error", "at high noise", "position", "change", "path")
MINUTES_BETWEEN_CHECKPOINTS = 4.0


def draw_timesteps(count: int) -> Tensor:
    """(count,) integers, stratified: a few of pure noise, many of high noise, the rest uniform."""
    part = (torch.randperm(count) + torch.rand(count)) / count
    high = HIGH_NOISE + (part - PURE_NOISE_SHARE) / HIGH_NOISE_SHARE * (STEPS - HIGH_NOISE)
    anywhere = (part - PURE_NOISE_SHARE - HIGH_NOISE_SHARE) / (1 - PURE_NOISE_SHARE - HIGH_NOISE_SHARE) * STEPS
    steps = torch.where(part < PURE_NOISE_SHARE + HIGH_NOISE_SHARE, high, anywhere)
    return torch.where(part < PURE_NOISE_SHARE, STEPS - 1, steps).long().clamp(0, STEPS - 1)


class Training:
    """Model, optimizer and averaged weights, with what is needed to stop at any moment and to resume."""

    def __init__(self, model: VideoModel, rate: float, temporal_rate: float, decay: float) -> None:
        self.model, self.step, self.seconds = model, 0, 0.0
        self._heads = PathHeads(model.unet)
        temporal = [weight for name, weight in model.trained.named_parameters() if is_temporal(name)]
        spatial = [weight for name, weight in model.trained.named_parameters() if not is_temporal(name)]
        self._groups = [
            {"params": temporal, "base": temporal_rate},
            {"params": spatial, "base": rate},
            {"params": list(self._heads.parameters()), "base": temporal_rate},
        ]
        self._optimizer = torch.optim.AdamW(self._groups, betas=(0.9, 0.99), weight_decay=0.01)
        self._average = AveragedWeights(model.trained, decay)

    def resume(self, path: Path) -> None:
        saved = torch.load(path, weights_only=True)
        self.model.trained.load_state_dict(saved["weights"])
        self._heads.load_state_dict(saved["heads"])
        rates = [group["base"] for group in self._optimizer.param_groups]
        self._optimizer.load_state_dict(saved["optimizer"])
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["base"] = rate
        self._average.state, self.step, self.seconds = saved["average"], saved["step"], saved["seconds"]

    def save(self, folder: Path) -> None:
        """checkpoint.pt to resume from, and `pipeline` with the averaged weights to sample from."""
        weights = {name: value.clone() for name, value in self.model.trained.state_dict().items()}
        write_checkpoint(
            folder / "checkpoint.pt",
            {
                "weights": weights,
                "heads": self._heads.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "average": self._average.state,
                "step": self.step,
                "seconds": self.seconds,
            },
        )
        self._average.copy_to(self.model.trained)
        write_folder(
            folder / "pipeline",
            lambda fresh: write_pipeline(fresh, "TextToVideoSDPipeline", self.model.parts()),
        )
        self.model.trained.load_state_dict(weights)

    def advance(self, rng: np.random.Generator, progress: float) -> dict[str, float]:
        """One step; returns the length of its clips and MEASURES."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["base"] * learning_rate_factor(self.step, progress)
        clips = draw_batch(rng, progress)
        timesteps = draw_timesteps(len(clips))
        with torch.autocast("cpu", torch.bfloat16):
            errors = self.model.loss(clips, timesteps)
        path_errors = self._heads.loss(clips)
        (errors.mean() + PATH_WEIGHT * path_errors.mean()).backward()
        torch.nn.utils.clip_grad_norm_(self.model.trained.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._average.update()
        self.step += 1
        measured = errors.mean(), errors[timesteps >= HIGH_NOISE].mean(), *path_errors
        return {"frames": len(clips[0].frames)} | dict(zip(MEASURES, map(Tensor.item, measured), strict=True))


def train(training: Training, out: Path, minutes: float, seed: int) -> None:
    rng = np.random.default_rng([seed, training.step])
    torch.manual_seed(seed + training.step)
    budget = Budget(minutes, training.seconds)
    probe, next_checkpoint, recent = MotionProbe(training.model), budget.used, list[dict[str, float]]()
    while not budget.spent:
        recent.append(training.advance(rng, budget.fraction))
        if len(recent) == 20:
            means = {name: np.mean([measures[name] for measures in recent]) for name in recent[0]}
            log(f"step {training.step} " + " ".join(f"{name} {mean:.4f}" for name, mean in means.items()))
            recent.clear()
        if budget.used >= next_checkpoint:
            gaps = probe.gaps(training.model)
            log("motion gap " + " ".join(f"t={t}: {100 * gap:.2f}%" for t, gap in gaps.items()))
            training.seconds = budget.used
            training.save(out)
            next_checkpoint = budget.used + 60 * MINUTES_BETWEEN_CHECKPOINTS
    training.seconds = budget.used
    training.save(out)
    log(f"saved after {training.step} steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    begin = parser.add_mutually_exclusive_group(required=True)
    begin.add_argument("--image-model", type=Path, help="pipeline folder of the text-to-image model to start from")
    begin.add_argument("--video-model", type=Path, help="pipeline folder of a text-to-video model to go on from")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint.pt and the pipeline")
    parser.add_argument("--resume", action="store_true", help="go on from checkpoint.pt in the output folder")
    parser.add_argument("--minutes", type=float, default=80.0, help="budget that includes the minutes before a resume")
    parser.add_argument("--rate", type=float, default=1.2e-3, help="learning rate of spatial layers and text encoder")
    parser.add_argument("--temporal-rate", type=float, default=1.5e-3)
    parser.add_argument("--decay", type=float, default=0.995, help="of the average of the weights")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.video_model:
        model = VideoModel.from_pipeline(options.video_model)
    else:
        model = VideoModel.from_image_pipeline(options.image_model)
    training = Training(model, options.rate, options.temporal_rate, options.decay)
    if options.resume:
        training.resume(options.out / "checkpoint.pt")
    train(training, options.out, options.minutes, options.seed)


if __name__ == "__main__":
    main()
