"""Small trainings of the tiny model on stories of little videos, as a user would start them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from vidgen_core.config import Composed, compose
from vidgen_core.video_writer import VideoWriter

STORIES = 6


def write_stories(folder: Path) -> Path:
    """Stories of two scenes, a segment of 5 frames of 32 x 32 each; returns the file of JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for story in range(STORIES):
        segments = [f"{story}_{scene}.mp4" for scene in range(2)]
        for name in segments:
            rng = np.random.default_rng([story, len(name)])
            writer = VideoWriter(folder / name, 8, {}, 12, 0)
            writer.write(rng.integers(0, 255, (5, 32, 32, 3), dtype=np.uint8))
            writer.close()
        lines.append(json.dumps({"captions": [f"story {story}", f"it goes on {story}"], "video_segments": segments}))
    file = folder / "stories.jsonl"
    file.write_text("\n".join(lines) + "\n")
    return file


def arguments(stories: Path, out: Path, *more: str) -> list[str]:
    """A training of four steps of two micro-batches, with everything random in it that a training can have."""
    given = {argument.partition("=")[0] for argument in more}
    own = {
        "model": "tiny",
        "method": "talc",
        "data.path": stories,
        "data.size": 32,
        "data.frames_per_scene": 2,
        "output.dir": out,
        "trainer.max_steps": 4,
        "trainer.accumulation": 2,
        "trainer.learning_rate": "1e-3",
        "trainer.schedule": "cosine",
        "trainer.ema": 0.9,
        "trainer.workers": 0,
        "trainer.log_every": 1,
        "trainer.checkpoint_every": 2,
        "objective.caption_dropout": 0.3,
    }
    return [*(f"{key}={value}" for key, value in own.items() if key not in given), *more]


def composed(stories: Path, out: Path, *more: str) -> Composed:
    return compose(arguments(stories, out, *more), entry="train")


def last(out: Path, file: str = "trained.safetensors") -> dict[str, Tensor]:
    """The tensors of the newest checkpoint."""
    name = json.loads((out / "checkpoints" / "index.json").read_text())["last"]
    return load_file(out / "checkpoints" / name / file)


def curve(out: Path) -> list[dict[str, Any]]:
    """The lines of the log."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two sets of tensors are equal bit for bit."""
    return first.keys() == second.keys() and all(bool((first[k] == second[k]).all()) for k in first)


def interrupt_after(steps: int) -> Any:
    """A stand-in for ``train.optimise`` that lets so many steps pass and is then interrupted."""
    from vidgen_core import train

    whole, done = train.optimise, iter(range(steps))

    def optimise(*args: Any, **kwargs: Any) -> Any:
        if next(done, None) is None:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    return optimise


def numbers(log: Sequence[dict[str, Any]], name: str) -> list[float]:
    """One column of the log."""
    return [line[name] for line in log if name in line]
