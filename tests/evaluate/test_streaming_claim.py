"""The comparison of long videos: every row makes every video, and all of them are scored by exact metrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from vidgen_moving_shapes.combinations import TRAINING_COMBINATIONS
from vidgen_moving_shapes.lasting import Lasting
from vidgen_moving_shapes.told import long_captions, told
from vidgen_moving_shapes.world import draw_scene

from vidgen_core import cli
from vidgen_core.metrics.footage import Footage
from vidgen_core.video_writer import VideoWriter

SMALL = ["n=1", "num_frames=40", "batch_size=1", "num_inference_steps=1", "model=tiny", "guidance_scale=1"]


def test_rows_are_made_and_scored_and_nothing_is_made_twice(tmp_path: Path, capsys) -> None:
    asked = ["evaluate", "experiment=streaming_claim", "compare=[streaming,independent]", *SMALL]
    assert cli.main([*asked, f"output.dir={tmp_path}"]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results["rows"]) == ["streaming", "independent"]
    assert {"seam", "mawe", "anchor_similarity", "colour_lasts", "tint_drift"} <= set(results["columns"])
    assert all(video["scores"]["seam"] is not None for video in results["videos"])
    capsys.readouterr()
    assert cli.main([*asked, f"output.dir={tmp_path}"]) == 0
    assert "2 videos are there already" in capsys.readouterr().err


def test_long_captions_tell_of_motions_without_an_end_and_more_begin_alike() -> None:
    some, more = long_captions(3), long_captions(7)
    assert dict(list(more.items())[:3]) == some
    assert {told(captions)[0][1] for captions in more.values()} == {"bounces sideways", "bounces up and down", "pulses"}


@pytest.fixture
def painted(tmp_path: Path) -> Footage:
    """A painted video whose second half is another object of another tint."""
    rng = np.random.default_rng(0)
    first, second = TRAINING_COMBINATIONS[0], TRAINING_COMBINATIONS[-1]
    halves = [draw_scene(rng, entity, "stays still", ground).frames() for entity, _, ground in (first, second)]
    writer = VideoWriter(tmp_path / "video.mp4", 8, {}, 0)
    writer.write(np.concatenate(halves))
    writer.close()
    entity, _, ground = first
    caption = f"a {entity.colour} {entity.shape} stays still on a {ground} background"
    return Footage("painted", tmp_path / "video.mp4", (caption,), (range(32),))


def test_an_object_that_was_replaced_does_not_last(painted: Footage) -> None:
    first, second = TRAINING_COMBINATIONS[0], TRAINING_COMBINATIONS[-1]
    scores = Lasting().score(painted)
    assert scores["colour_lasts"] == (first[0].colour == second[0].colour)
    assert scores["shape_lasts"] == (first[0].shape == second[0].shape)
    assert scores["tint_drift"] is not None and scores["tint_drift"] > 40


def test_the_same_object_lasts_and_keeps_its_tint(painted: Footage) -> None:
    vars(painted)["frames"] = np.concatenate([painted.frames[:16]] * 2)
    scores = Lasting().score(painted)
    assert (scores["colour_lasts"], scores["shape_lasts"], scores["tint_drift"]) == (1, 1, 0)
