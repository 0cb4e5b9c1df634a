"""Depth control that is learnt from images with depth and videos that have none, in Moving Shapes.

Once a seed: the embedded image model with new layers over time is trained by TF-T2V on captioned images and videos
without text, then goes on with images that have their exact depth, while no video ever has. Then captions without a
word of motion are made into videos, with the depth of a rendered clip that shows what the caption says, and without it.
The table tells how well the object lies where the depth has it, as means over seeds with 95 % bootstrap intervals.
``python benchmarks/tf_t2v_depth.py [--seeds 0 1 2] [--n 16] [--steps 240] [--depth-steps 150]``; trainings that are
finished in ``--out`` are not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vidgen_moving_shapes.captions import image_caption
from vidgen_moving_shapes.combinations import TRAINING_COMBINATIONS
from vidgen_moving_shapes.motions import MOTIONS
from vidgen_moving_shapes.oracle import object_mask, read
from vidgen_moving_shapes.subjects import choose, overlap
from vidgen_moving_shapes.world import GROUND_NEARNESS, draw_scene

from vidgen_core.api import generate, train
from vidgen_core.evaluation.statistics import by_unit, interval, paired

FRAMES, STRIDE = 8, 2
COLUMNS = ("iou", "pixels_off", "motion")
TRAINING = {
    "method": "tf_t2v",
    "data": "moving_shapes_joint",
    "data.frames": FRAMES,
    "data.stride": STRIDE,
    "data.images_per_video": 4,
    "trainer.batch_size": 8,
    "trainer.learning_rate": 6e-4,
    "trainer.rate_scale": {"temp": 2.0},
    "trainer.ema": 0.98,
    "trainer.workers": 0,
    "tf_t2v.drop": 0.1,
    "model": "moving_shapes_start",
}
"""32 images or 8 videos a step."""
WITH_DEPTH = {
    "data.depth": True,
    "data.shares": {"text_to_image": 0.5, "image_to_image": 0.5, "image_to_video": 0.5},
    "tf_t2v.trained_conditions": ["depth"],
}
"""Two of three steps show images, whose depth is told."""

Masks = NDArray[np.bool_]


def trained(seed: int, options: argparse.Namespace) -> Path:
    """The folder of what was learnt with a seed."""
    folder = options.out / f"seed_{seed}"
    stages: Sequence[tuple[str, int, Mapping[str, Any]]] = (
        ("motion", options.steps, {}),
        ("depth", options.depth_steps, {**WITH_DEPTH, "tuned": str(folder / "motion")}),
    )
    for name, steps, more in stages:
        place = folder / name
        if not (place / "methods").is_dir():
            resume = (place / "run.yaml").is_file()
            own = {"seed": seed, "trainer.max_steps": steps, "output.dir": str(place), "resume": resume}
            train(**TRAINING, **own, **more)
    return folder / "depth"


def centre(mask: Masks) -> NDArray[np.float64]:
    """Of an object, (2,) pixels; that of the picture where there is none."""
    found = np.argwhere(mask)
    return found.mean(axis=0) if len(found) else np.array(mask.shape) / 2


def marks_of(frames: NDArray[np.uint8], wanted: Masks, motion: str) -> dict[str, float]:
    """``iou`` of the object with the depth's, ``pixels_off`` from its centre, and whether the ``motion`` is read."""
    found = np.stack([object_mask(frame) for frame in frames])
    return {
        "iou": overlap(found, wanted),
        "pixels_off": float(
            np.mean([np.linalg.norm(centre(a) - centre(b)) for a, b in zip(found, wanted, strict=True)])
        ),
        "motion": float(read(frames).motion == motion),
    }


def marked(seed: int, learnt: Path, options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Row -> the marks of every video of a seed."""
    rng = np.random.default_rng([seed, len(MOTIONS)])
    rows: dict[str, list[dict[str, float]]] = {"with depth": [], "without depth": []}
    for number, (entity, motion, ground) in enumerate(choose(rng, TRAINING_COMBINATIONS, options.n)):
        nearness = draw_scene(rng, entity, motion, ground, FRAMES * STRIDE)[::STRIDE].nearness()
        depth = learnt / f"depth_{number:03d}.npy"
        np.save(depth, nearness)
        for row, marks in rows.items():
            told = {"tf_t2v.conditions": {"depth": str(depth)}} if row == "with depth" else {}
            request = {"method": "tf_t2v", "tuned": str(learnt), "prompt": image_caption(entity, ground), **told}
            request |= {"num_frames": FRAMES, "num_inference_steps": options.inference_steps, "seed": number}
            place = learnt / "videos" / f"{row.replace(' ', '_')}_{number:03d}"
            request |= {"output.dir": str(place), "output.overwrite": True, "output.contact_sheet": False}
            marks.append(marks_of(generate(**request).frames, nearness > GROUND_NEARNESS, motion))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of a training, and of its captions")
    parser.add_argument("--n", type=int, default=16, help="videos of every row and seed")
    parser.add_argument("--steps", type=int, default=240, help="training steps without depth")
    parser.add_argument("--depth-steps", type=int, default=150, help="training steps from there with it")
    parser.add_argument("--inference-steps", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("runs/tf_t2v_depth"), help="folder of trainings and videos")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, list[dict[str, float]]] = {}
    units: list[str] = []
    for seed in options.seeds:
        for row, marks in marked(seed, trained(seed, options), options).items():
            rows.setdefault(row, []).extend(marks)
        units += [str(seed)] * options.n
    means = {row: {c: by_unit(marks, units, c) for c in COLUMNS} for row, marks in rows.items()}
    table: dict[str, Any] = {row: {c: interval(list(means[row][c].values())) for c in COLUMNS} for row in rows}
    table["difference"] = {c: paired(means["with depth"][c], means["without depth"][c]) for c in COLUMNS}
    report = {row: {c: found.record() for c, found in columns.items()} for row, columns in table.items()}
    settings = {key: str(value) if key == "out" else value for key, value in vars(options).items()}
    (options.out / "results.json").write_text(json.dumps({**settings, "rows": report}, indent=2) + "\n")
    print(
        "| row |" + "".join(f" {c.replace('_', ' ')} |" for c in COLUMNS) + "\n" + "| --- " * (1 + len(COLUMNS)) + "|"
    )
    for row, columns in table.items():
        cells = [f" {found.mean:.2f} ({found.low:.2f} to {found.high:.2f}) |" for found in columns.values()]
        print(f"| {row} |" + "".join(cells))


if __name__ == "__main__":
    main()
