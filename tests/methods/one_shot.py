"""What the tests of one-shot tuning share: a clip of a moving square, trainings of two steps on it, and quick edits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vidgen_core.api import train
from vidgen_core.video_writer import VideoWriter

QUICK = {"method": "tune_a_video", "num_inference_steps": 2, "scheduler": "ddim"}


def write_clip(path: Path) -> Path:
    """Twelve frames of a bright square that moves."""
    frames = torch.full((12, 64, 64, 3), 30, dtype=torch.uint8)
    for i in range(12):
        frames[i, 20:36, 2 + 4 * i : 18 + 4 * i] = torch.tensor([220, 60, 60], dtype=torch.uint8)
    writer = VideoWriter(path, fps=8)
    writer.write(frames.numpy())
    writer.close()
    return path


def tune(folder: Path, clip: Path, **values: Any) -> Path:
    """The folder of a training of two steps."""
    options = {"method": "tune_a_video", "model": "tiny_image", "num_frames": 4, "height": 64, "width": 64}
    options |= {"trainer.max_steps": 2, "trainer.learning_rate": 1e-2, "trainer.workers": 0}
    train(**{**options, "video": clip, "prompt": "a square", "output.dir": folder, **values})
    return folder
