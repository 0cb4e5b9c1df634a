"""Small files in the place of those that a page speaks of and that its reader would have: clips, stories, weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from published_weights import published
from vgen_weights import checkpoint

from vidgen_core.models import tiny
from vidgen_core.video_writer import VideoWriter

SETS = ("single_character_multiple_context", "different_characters_same_context", "captions_from_real_videos")
"""The published prompt files of TALC's benchmark."""

CLIP = "clip_{}.mp4"


def put(path: Path) -> None:
    """Write the stand-in of a file, or of a folder, told by its name. Raises AssertionError where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "prompts":
        path.mkdir()
        for name in SETS:
            (path / f"{name}.json").write_text(json.dumps({"dog": ["a dog runs", "it sits", "it sleeps", "it wakes"]}))
    elif path.name == "images":
        path.mkdir()
        for number in range(3):
            put(path / f"{number}.png")
            (path / f"{number}.txt").write_text(f"picture number {number}\n")
    elif not path.suffix:  # a folder of clips with a caption each
        path.mkdir(exist_ok=True)
        for number in range(3):
            _clip(path / CLIP.format(number))
            (path / f"clip_{number}.txt").write_text(f"clip number {number}\n")
    elif path.suffix == ".mp4":
        _clip(path)
    elif path.suffix == ".png":
        from PIL import Image

        Image.fromarray(_noise(1, 64)[0]).save(path)
    elif path.suffix == ".jsonl":  # stories of those clips
        story = {"captions": ["a dog runs", "it sits"], "video_segments": [CLIP.format(0), CLIP.format(1)]}
        path.write_text(f"{json.dumps(story)}\n" * 4)
    elif path.suffix == ".npz":
        np.savez(path, depth=_noise(64, 64)[..., 0].astype(np.float32))
    elif path.suffix == ".ckpt":
        torch.save({"state_dict": published(), "global_step": 3}, path)
    elif path.suffix == ".pth":
        torch.save(checkpoint(tiny.build()), path)
    else:
        raise AssertionError(f"nobody knows what '{path.name}' holds")


def _clip(path: Path) -> None:
    writer = VideoWriter(path, 8)
    writer.write(_noise(64, 64))
    writer.close()


@cache
def _noise(frames: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (frames, side, side, 3), dtype=np.uint8)
