"""Edit cases: source clips with exact tracks and depth, and captions that each change one thing that the clip shows.

``python -m vidgen_moving_shapes.edits --count N --out DIR [--crossings]`` writes them to a folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidgen_moving_shapes.combinations import TRAINING_IMAGES
from vidgen_moving_shapes.edit_oracle import Source
from vidgen_moving_shapes.motions import DIRECTIONS
from vidgen_moving_shapes.palette import COLOURS, GROUNDS
from vidgen_moving_shapes.shapes import SHAPES
from vidgen_moving_shapes.shown import Shown
from vidgen_moving_shapes.training.images import PAIR_MOTIONS, VISIBLE_SHARE
from vidgen_moving_shapes.world import CLIP_FRAMES, FRAMES_PER_SECOND, Entity, Scene, draw_pair_scene, draw_scene

VALUES = {"colour": COLOURS, "shape": SHAPES, "ground": GROUNDS}
OF_ONE = ("colour", "shape", "ground")
OF_TWO = ("front_colour", "back_colour", "ground")
"""What the edits of a clip change, in turn; of two objects no shape, which the depth of the clip already tells."""


@dataclass(frozen=True)
class Case:
    """A source clip and its edits.

    Attributes:
        name: Of its files.
        scene: The clip as it is painted.
        shown: What it shows, from front to back.
        motion: Of the one object, or of the one that passes the other, which stays.
        edits: Name, that of the attribute that changes -> what the edited clip is to show.
    """

    name: str
    scene: Scene
    shown: Shown
    motion: str
    edits: Mapping[str, Shown]

    @property
    def caption(self) -> str:
        """Of the source, as image models are told it: without its motion."""
        return self.shown.caption

    @property
    def captions(self) -> dict[str, str]:
        """Name of the edit -> edited prompt."""
        return {name: shown.caption for name, shown in self.edits.items()}

    @property
    def source(self) -> Source:
        """The exact truth, to compare edited clips with."""
        return Source.of(self.scene, self.shown)

    def frames(self) -> NDArray[np.uint8]:
        """The source clip, (F, CANVAS, CANVAS, 3) uint8."""
        return self.scene.frames()

    def nearness(self) -> NDArray[np.float32]:
        """Its exact relative inverse depth, (F, CANVAS, CANVAS), 0 to 1."""
        return self.scene.nearness()

    def record(self) -> dict[str, Any]:
        """As it stands in ``cases.json``; tracks are (objects, F, 2) as (x, y) pixels, from front to back."""
        tracks = np.round(self.source.tracks, 3).tolist()
        truth = {**self.shown.attributes, "motion": self.motion, "tracks": tracks}
        return {"caption": self.caption, "edits": self.captions, "truth": truth}


def draw_edits(n: int, edits_per_clip: int = 3, seed: int = 0, frames: int = CLIP_FRAMES) -> list[Case]:
    """Clips of one object that travels left, right, up or down, and edits of its colour, its shape and its ground.

    Whatever a source or an edit is to show is among the training combinations of the image models.

    Args:
        n: How many; a larger number begins with the same.
        edits_per_clip: The attributes in turn, never the same edit of a clip twice; 6 at the most.
        frames: Of every clip.
    """
    motions = tuple(DIRECTIONS)

    def draw(rng: np.random.Generator, number: int) -> tuple[Scene, Shown, str]:
        (entity, ground), motion = TRAINING_IMAGES[rng.integers(len(TRAINING_IMAGES))], motions[number % len(motions)]
        return draw_scene(rng, entity, motion, ground, frames), Shown((entity,), ground), motion

    return [_draw_case(f"edit_{i:03d}", draw, OF_ONE, edits_per_clip, seed, i) for i in range(n)]


def draw_crossings(n: int, edits_per_clip: int = 3, seed: int = 0, frames: int = CLIP_FRAMES) -> list[Case]:
    """Clips of one object that passes in front of, or behind, another; edits of the front's colour, the back's colour
    and the ground.

    Captions name the front object first, as those of the depth model's training do, whichever moves; each object on
    the ground is a training combination, and every frame shows as much of the back one as training pictures do.
    """

    def draw(rng: np.random.Generator, number: int) -> tuple[Scene, Shown, str]:
        front, ground = TRAINING_IMAGES[rng.integers(len(TRAINING_IMAGES))]
        behind = [entity for entity, place in TRAINING_IMAGES if place == ground and entity.colour != front.colour]
        shown = Shown((front, behind[rng.integers(len(behind))]), ground)
        motion, front_moves = PAIR_MOTIONS[number % 2], number // 2 % 2 == 0
        return _draw_crossing(rng, shown, motion, front_moves, frames), shown, motion

    return [_draw_case(f"crossing_{i:03d}", draw, OF_TWO, edits_per_clip, seed, i) for i in range(n)]


def write_cases(cases: Sequence[Case], folder: Path) -> Path:
    """Write ``<name>.mp4`` and ``<name>.depth.npz`` of every case, and ``cases.json``, whose path is returned.

    The depth is ``nearness``, (F, CANVAS, CANVAS) float16; ``cases.json`` holds ``Case.record`` by name.

    Raises VidgenError where the folder cannot be written.
    """
    from vidgen_core.video_writer import VideoWriter, explained, make_plain

    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        # Lossless, but for the halved resolution of colour, which the oracle reads through.
        writer = VideoWriter(folder / f"{case.name}.mp4", FRAMES_PER_SECOND, crf=0)
        writer.write(case.frames())
        writer.close()
        make_plain(writer.path)
        with explained(folder):
            np.savez_compressed(folder / f"{case.name}.depth.npz", nearness=case.nearness().astype(np.float16))
    told = folder / "cases.json"
    with explained(told):
        told.write_text(json.dumps({case.name: case.record() for case in cases}, indent=1) + "\n")
    return told


def example_cases() -> list[Case]:
    """The two clips that come with the package, for those who have none of their own."""
    red = Shown((Entity("red", "circle"),), "white")
    scene = draw_scene(np.random.default_rng(0), red.entities[0], "moves right", red.ground)
    two = Shown((Entity("red", "circle"), Entity("blue", "square")), "white")
    crossing = _draw_crossing(np.random.default_rng(0), two, "moves right", True, CLIP_FRAMES)
    return [
        Case("red_circle_moves_right", scene, red, "moves right", {"colour": red.changed("colour", "blue")}),
        Case("crossing", crossing, two, "moves right", {"front_colour": two.changed("front_colour", "green")}),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write drawn cases, or the examples, to a folder and say where."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=12, help="clips")
    parser.add_argument("--out", type=Path, required=True, help="folder for the clips, their depth and cases.json")
    parser.add_argument("--crossings", action="store_true", help="two objects that overlap, instead of one")
    parser.add_argument("--examples", action="store_true", help="the clips that come with the package, instead")
    parser.add_argument("--edits", type=int, default=3, choices=range(1, 7), metavar="1..6", help="of each clip")
    parser.add_argument("--frames", type=int, default=CLIP_FRAMES, help="of each clip")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.examples:
        cases = example_cases()
    else:
        draw = draw_crossings if options.crossings else draw_edits
        cases = draw(options.count, options.edits, options.seed, options.frames)
    print(write_cases(cases, options.out))
    return 0


# ------------------------------------------------------------------------------------------------ drawing


def _draw_case(
    name: str,
    draw: Callable[[np.random.Generator, int], tuple[Scene, Shown, str]],
    attributes: Sequence[str],
    count: int,
    seed: int,
    number: int,
) -> Case:
    """Draw sources until one has as many edits as wanted."""
    rng = np.random.default_rng([seed, number])
    while True:
        scene, shown, motion = draw(rng, number)
        edits = _draw_edits_of(rng, shown, attributes, count)
        if edits is not None:
            return Case(name, scene, shown, motion, edits)


def _draw_edits_of(
    rng: np.random.Generator, shown: Shown, attributes: Sequence[str], count: int
) -> dict[str, Shown] | None:
    """The attributes in turn; None where one has too few values that training shows."""
    edits = {}
    for place, attribute in enumerate(attributes):
        wanted = len(range(place, count, len(attributes)))
        known = [shown.changed(attribute, value) for value in VALUES[attribute.rpartition("_")[2]]]
        known = [edit for edit in known if edit != shown and _is_trained(edit)]
        if len(known) < wanted:
            return None
        for turn, choice in enumerate(rng.permutation(len(known))[:wanted]):
            edits[attribute if turn == 0 else f"{attribute}_{turn + 1}"] = known[choice]
    return edits


def _is_trained(shown: Shown) -> bool:
    """Whether every object is a training combination on the ground, and two have different colours."""
    colours = {entity.colour for entity in shown.entities}
    trained = all((entity, shown.ground) in TRAINING_IMAGES for entity in shown.entities)
    return trained and len(colours) == len(shown.entities)


def _draw_crossing(rng: np.random.Generator, shown: Shown, motion: str, front_moves: bool, frames: int) -> Scene:
    """One object passes the middle of the other, and never hides too much of it."""
    front, back = shown.entities
    mover, other = (front, back) if front_moves else (back, front)
    while True:
        scene = draw_pair_scene(rng, mover, motion, front_moves, other, shown.ground, frames)
        behind, before = (layer.coverage() > 0.5 for layer in scene.layers)
        visible = (behind & ~before).sum(axis=(1, 2)) / behind.sum(axis=(1, 2))
        apart = scene.layers[0].track.centre[:, 0] - scene.layers[1].track.centre[:, 0]
        if visible.min() >= VISIBLE_SHARE and apart[0] * apart[-1] < 0:
            return scene


if __name__ == "__main__":
    sys.exit(main())
