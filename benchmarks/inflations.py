"""Do the inflations learn time from a folder of videos? Each is trained a little on Moving Shapes, and its clips read.

Renders captioned clips into a folder, trains each inflation of the embedded image model on it by `vidgen train`, makes
clips of captions with it and with its temporal layers left out, and reads them back by the oracle.
``python benchmarks/inflations.py [--kinds video_ldm make_a_video vdm] [--steps 200] [--clips 128] [--videos 16]``
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vidgen_moving_shapes.captions import clip_caption
from vidgen_moving_shapes.combinations import Combination
from vidgen_moving_shapes.oracle import read
from vidgen_moving_shapes.rendered import drawn
from vidgen_moving_shapes.scores import Collected, write_sheet
from vidgen_moving_shapes.world import draw_scene

from vidgen_core.api import train
from vidgen_core.config import compose
from vidgen_core.run import generate
from vidgen_core.video_writer import VideoWriter

Frames = NDArray[np.uint8]
FRAMES, STRIDE = 8, 2
"""Frames of a clip, and frames of the world from one to the next: what moves is seen to move."""
RATES: dict[str, dict[str, Any]] = {
    "video_ldm": {"trainer.learning_rate": 2e-3},
    "make_a_video": {"trainer.learning_rate": 2e-3},
    # The image model trains as well, and needs no more than a little.
    "vdm": {"trainer.learning_rate": 1e-4, "trainer.rate_scale": {"temporal": 20}},
}


def rendered(number: int, combination: Combination, seed: int) -> Frames:
    scene = draw_scene(np.random.default_rng([seed, number]), *combination, frames=FRAMES * STRIDE)
    return scene[::STRIDE].frames()


def write_clips(folder: Path, combinations: Sequence[Combination]) -> None:
    """A folder of videos, each with its caption beside it."""
    folder.mkdir()
    for number, combination in enumerate(combinations):
        writer = VideoWriter(folder / f"{number:04d}.mp4", fps=8)
        writer.write(rendered(number, combination, seed=1))
        writer.close()
        (folder / f"{number:04d}.txt").write_text(clip_caption(*combination))


def trained(kind: str, clips: Path, run: Path, steps: int) -> float:
    """Train one inflation; returns the seconds of CPU time that it took."""
    before = time.process_time()
    options = {"method": "tune_a_video", "tune_a_video.inflation": kind, "model": "moving_shapes_image"}
    data = {"data": "folder", "data.path": clips, "data.frames": FRAMES, "data.size": 64}
    trainer = {"trainer.max_steps": steps, "trainer.batch_size": 1, "trainer.workers": 0, "trainer.cache": "latents"}
    schedule = {"trainer.schedule": "cosine", "trainer.warmup": 0.05, "objective.caption_dropout": 0.1}
    train(**options, **data, **trainer, **schedule, **RATES[kind], **{"output.dir": run})
    return time.process_time() - before


def made(run: Path, temporal: bool, wanted: Sequence[Combination], folder: Path) -> list[Frames]:
    """A clip of every caption, by what was trained."""
    prompts = folder / "captions.json"
    prompts.write_text(json.dumps({f"{n:03d}": [clip_caption(*one)] for n, one in enumerate(wanted)}))
    values = {"method": "tune_a_video", "tuned": run, "tune_a_video.temporal": temporal, "num_inference_steps": 15}
    values |= {"prompts_file": prompts, "num_frames": FRAMES, "batch_size": 4, "output.dir": folder / f"{temporal}"}
    collected = Collected()
    generate(compose([], {**values, "output.video": False, "output.contact_sheet": False}), {"collected": collected})
    return [collected.videos[f"{n:03d}"] for n in range(len(wanted))]


def measured(clips: Sequence[Frames], wanted: Sequence[Combination]) -> dict[str, float]:
    """Means over clips.

    ``difference``: of neighbouring frames, 0..255; ``jerk``: how far the object is from where an even motion would
    have it, pixels a frame; ``steady``: share of frames that show the object and the ground of most of them; ``told``:
    share of frames that show those of the caption; ``motion``: share of clips that move as their caption says.
    """
    rows = []
    for frames, (entity, motion, ground) in zip(clips, wanted, strict=True):
        reading = read(frames)
        shown = [(frame.shape, frame.colour, frame.ground) for frame in reading.frames]
        most = (reading.shape, reading.colour, reading.ground)
        rows.append(
            {
                "difference": np.abs(np.diff(frames.astype(float), axis=0)).mean(),
                "jerk": np.linalg.norm(np.diff(reading.positions, n=2, axis=0), axis=1).mean(),
                "steady": np.mean([one == most for one in shown]),
                "told": np.mean([one == (entity.shape, entity.colour, ground) for one in shown]),
                "motion": reading.motion == motion,
            }
        )
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def told(name: str, row: Mapping[str, float]) -> str:
    return f"| {name} | " + " | ".join(f"{value:.2f}" for value in row.values()) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=[*RATES], default=[*RATES])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--clips", type=int, default=128)
    parser.add_argument("--videos", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=Path("outputs/inflations"), help="a new folder")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    write_clips(options.folder / "clips", drawn(options.clips, "training", "train", 0))
    wanted = drawn(options.videos, "training", "made", 0)
    real = [rendered(number, one, seed=2) for number, one in enumerate(wanted)]
    print(told("rendered", measured(real, wanted)), flush=True)
    for kind in options.kinds:
        run = options.folder / kind
        seconds = trained(kind, options.folder / "clips", run, options.steps)
        # The frozen image model is the same without the layers of any inflation; where all trains it is another.
        for temporal in (True, False) if kind in (options.kinds[0], "vdm") else (True,):
            begun = time.process_time()
            (run / "made").mkdir(exist_ok=True)
            clips = made(run, temporal, wanted, run / "made")
            name = f"{kind}, trained {seconds:.0f} s" if temporal else f"{kind}, temporal=false"
            print(told(name, measured(clips, wanted)), f"made in {time.process_time() - begun:.0f} s", flush=True)
            write_sheet(run / f"temporal_{temporal}.png", clips[:8], [True] * 8)


if __name__ == "__main__":
    main()
