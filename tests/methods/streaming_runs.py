"""What the tests of StreamingT2V share: a tiny model in small chunks, and a video of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidgen_core.config import compose
from vidgen_core.run import generate
from vidgen_core.video import read_video

TINY = ["method=streaming", "model=tiny", "num_inference_steps=2", "streaming.chunk=4", "streaming.overlap=2"]
SIZE = ["height=32", "width=32"]


def made(folder: Path, *more: str) -> np.ndarray:
    generate(compose([*TINY, *SIZE, f"output.dir={folder}", *more]))
    return read_video(folder / "video.mp4")
