"""Score a model of Moving Shapes by the oracle: ``python -m vidgen_moving_shapes.scores <kind> [key=value ...]``.

Kinds are ``text_to_video``, ``text_to_image``, ``depth_to_image`` and ``image_encoder``; ``oracle`` reads the painter
itself. ``key=value`` are those of ``vidgen``, such as ``model.path=folder``. Videos are made as ``vidgen`` makes them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidgen_core import hookimpl
from vidgen_core.config import compose
from vidgen_core.depth_map import depth_channel
from vidgen_core.run import FrameBlock, Run, Window, generate
from vidgen_moving_shapes.retrieval import CLIP, retrieval
from vidgen_moving_shapes.subjects import SETS, Frames, Marks, Subject, subjects_of

MODELS = {
    "text_to_video": "moving_shapes",
    "text_to_image": "moving_shapes_image",
    "depth_to_image": "moving_shapes_depth",
}
BATCH = {"text_to_video": 14, "text_to_image": 56, "depth_to_image": 56}
SHOWN, COLUMNS = 16, 8
"""Answers in a contact sheet, and pictures in one of its rows."""
WRONG = (255, 0, 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, write ``<out>/<kind>.json`` and a contact sheet for each set; wrong answers are framed in red."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*SETS, "image_encoder"])
    parser.add_argument("--count", type=int, default=56, help="subjects of each set")
    parser.add_argument("--seed", type=int, default=0, help="of the subjects and of the noise")
    parser.add_argument("--out", type=Path, required=True, help="folder for the JSON file and the contact sheets")
    parser.add_argument("--clip", default=CLIP, help="folder of the image encoder")
    options, overrides = parser.parse_known_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    started, made_by = time.perf_counter(), {}
    if options.kind == "image_encoder":
        rows, made_by = retrieval(options.clip, options.count, options.seed), {"clip": options.clip}
    else:
        asked = subjects_of(options.kind, options.count, options.seed)
        answers, made_by = answered(options.kind, asked, overrides, options.seed)
        rows = {}
        for name, subjects in asked.items():
            marks = [subject.mark(frames) for subject, frames in zip(subjects, answers[name], strict=True)]
            rows[name] = means(marks)
            sheet = options.out / f"{options.kind}_{name.replace(' ', '_')}.png"
            write_sheet(sheet, answers[name][:SHOWN], [all_right(m) for m in marks[:SHOWN]])
    report = {
        "kind": options.kind,
        "count": options.count,
        "seed": options.seed,
        **made_by,
        "seconds": round(time.perf_counter() - started, 1),
        "scores": rows,
    }
    (options.out / f"{options.kind}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(table(rows))
    return 0


def answered(
    kind: str, asked: Mapping[str, Sequence[Subject]], overrides: Sequence[str], seed: int
) -> tuple[dict[str, list[Frames]], dict[str, Any]]:
    """The frames (F, CANVAS, CANVAS, 3) that a model, or the painter, shows for every subject, and how it made them."""
    if kind == "oracle":
        return {name: [subject.scene.frames() for subject in subjects] for name, subjects in asked.items()}, {}
    by_name = {f"{name}_{i:03d}".replace(" ", "_"): s for name, ss in asked.items() for i, s in enumerate(ss)}
    chosen = [f"model={MODELS[kind]}"] if not any(o.startswith("model=") for o in overrides) else []
    with tempfile.TemporaryDirectory() as work:
        prompts = Path(work) / "captions.json"
        prompts.write_text(json.dumps({name: [subject.caption] for name, subject in by_name.items()}))
        values = {"output.dir": str(Path(work) / "out"), "output.video": False, "output.contact_sheet": False}
        values |= {"prompts_file": str(prompts), "batch_size": BATCH[kind], "seed": seed}
        given = {override.partition("=")[0] for override in overrides}
        composed = compose([*chosen, *overrides], {k: v for k, v in values.items() if k not in given})
        collected = Collected()
        depth = {"depth": GivenDepth(by_name)} if kind == "depth_to_image" else {}
        generate(composed, {"collected": collected, **depth})
    frames = iter(collected.videos[name] for name in by_name)
    answers = {name: [next(frames) for _ in subjects] for name, subjects in asked.items()}
    keys = ("num_inference_steps", "guidance_scale", "num_frames")
    settings = {key: getattr(composed.request, key) for key in keys}
    return answers, {"model": composed.config["model"]["path"], **settings}


class Collected:
    """The frames of every video of a run, by its name."""

    def __init__(self) -> None:
        self._blocks: dict[str, list[Frames]] = {}

    @hookimpl
    def deliver(self, run: Run, block: FrameBlock) -> None:
        """Keep a block of frames."""
        for video, pixels in zip(run.request.videos, block.pixels(), strict=True):
            self._blocks.setdefault(video.name, []).append(pixels)

    @property
    def videos(self) -> dict[str, Frames]:
        """Name -> (F, H, W, 3) uint8."""
        return {name: np.concatenate(blocks) for name, blocks in self._blocks.items()}


class GivenDepth:
    """The exact depth of every subject as the fifth latent channel."""

    def __init__(self, subjects: Mapping[str, Subject]) -> None:
        self._subjects = subjects

    @hookimpl(claims="channels")
    def condition(self, run: Run, window: Window) -> dict[str, Any]:
        """``channels`` of the window's frames."""
        maps = [self._subjects[video.name].scene.nearness()[list(window.span)] for video in run.request.videos]
        _, h, w = run.backbone.latent_shape(run.request.height, run.request.width)
        return {"channels": depth_channel(torch.from_numpy(np.stack(maps)), (h, w))}


def means(marks: Sequence[Marks]) -> dict[str, float]:
    """The share that is right of every attribute, of all together, and the mean of every overlap."""
    scores = {name: float(np.mean([mark[name] for mark in marks])) for name in marks[0]}
    return {"n": len(marks), **scores, "all": float(np.mean([all_right(mark) for mark in marks]))}


def all_right(mark: Marks) -> bool:
    """Whether every attribute is right; overlaps do not count."""
    return all(value == 1 for name, value in mark.items() if not name.endswith("_iou"))


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """A line for each set."""
    return "\n".join(
        f"{name}: " + ", ".join(f"{key} {value:.3f}" if key != "n" else f"n {value}" for key, value in row.items())
        for name, row in rows.items()
    )


def write_sheet(path: Path, answers: Sequence[Frames], right: Sequence[bool]) -> None:
    """A contact sheet: a clip a row, evenly spaced frames; single pictures side by side."""
    from PIL import Image

    framed = [frames if ok else _framed(frames) for frames, ok in zip(answers, right, strict=True)]
    if len(framed[0]) == 1:
        framed = [np.concatenate(framed[i : i + COLUMNS]) for i in range(0, len(framed), COLUMNS)]
    rows = []
    for frames in framed:
        moments = np.linspace(0, len(frames) - 1, min(COLUMNS, len(frames))).round().astype(int)
        row = np.concatenate(
            [np.pad(frames[m], ((1, 1), (1, 1), (0, 0)), constant_values=255) for m in moments], axis=1
        )
        rows.append(row)
    wide = max(row.shape[1] for row in rows)
    rows = [np.pad(row, ((0, 0), (0, wide - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    Image.fromarray(np.concatenate(rows)).save(path)


def _framed(frames: Frames) -> Frames:
    framed = frames.copy()
    for edge in (np.s_[:, :2], np.s_[:, -2:], np.s_[:, :, :2], np.s_[:, :, -2:]):
        framed[edge] = WRONG
    return framed


if __name__ == "__main__":
    sys.exit(main())
