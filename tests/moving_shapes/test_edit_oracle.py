"""The oracle of edits: 1 everywhere on rendered truth, and less for each thing that an edit can get wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from vidgen_moving_shapes.edit_oracle import LOST, EditOracle, Source, score_edit
from vidgen_moving_shapes.edits import Case, draw_crossings, draw_edits, write_cases
from vidgen_moving_shapes.palette import GROUND_COLOURS, OBJECT_COLOURS
from vidgen_moving_shapes.shown import Shown
from vidgen_moving_shapes.world import Layer, Scene

from vidgen_core.errors import BadRequest
from vidgen_core.metrics.footage import Footage
from vidgen_core.video import read_video
from vidgen_core.video_writer import VideoWriter

ONE = draw_edits(8)
TWO = draw_crossings(2)
CASE, CROSSING = ONE[0], TWO[0]


def painted(case: Case, shown: Shown, shift: float = 0.0) -> Scene:
    """What an edit is to show where the source shows it, the front object so many pixels to the right."""
    layers = []
    for entity, layer in zip(shown.entities[::-1], case.scene.layers, strict=True):
        rgb = np.asarray(OBJECT_COLOURS[entity.colour], np.float32)
        layers.append(Layer(entity.shape, rgb, layer.track))
    moved = replace(layers[-1].track, centre=layers[-1].track.centre + np.array([shift, 0], np.float32))
    layers[-1] = replace(layers[-1], track=moved)
    return Scene(np.asarray(GROUND_COLOURS[shown.ground], np.float32), tuple(layers))


def scores(case: Case, edit: str, frames: np.ndarray) -> dict[str, float | None]:
    return score_edit(case.source, case.captions[edit], frames)


def other(shown: Shown, attribute: str, values: tuple[str, ...]) -> Shown:
    """The same with another value of an attribute."""
    taken = shown.attributes.values()
    return shown.changed(attribute, next(value for value in values if value not in taken))


def right(found: dict[str, float | None]) -> list[str]:
    return [name for name, value in found.items() if value == 1]


@pytest.mark.parametrize("case", ONE, ids=lambda case: case.name)
def test_the_rendered_truth_of_an_edit_is_right_everywhere(case: Case) -> None:
    for name, shown in case.edits.items():
        found = scores(case, name, painted(case, shown).frames())
        assert right(found) == ["edited", "kept", "motion_kept", "success"]
        assert found["motion_error"] < 0.2
        assert found["occlusion_order"] is None


@pytest.mark.parametrize("case", TWO, ids=lambda case: case.name)
def test_so_is_that_of_a_crossing_and_exchanged_depth_is_the_wrong_order(case: Case) -> None:
    for name, shown in case.edits.items():
        scene = painted(case, shown)
        found = scores(case, name, scene.frames())
        assert right(found) == ["edited", "kept", "motion_kept", "success", "occlusion_order"]
        assert found["motion_error"] < 1
        turned = scores(case, name, replace(scene, layers=scene.layers[::-1]).frames())
        assert right(turned) == ["edited", "kept", "motion_kept", "success"]


@pytest.mark.parametrize("case", [*ONE[:3], *TWO], ids=lambda case: case.name)
def test_the_oracle_reads_a_source_from_its_frames(case: Case) -> None:
    found = Source.read(case.frames(), len(case.shown.entities))
    assert found.shown == case.shown
    assert np.abs(found.tracks - case.source.tracks).max() < 1.5
    assert np.array_equal(found.overlapping, case.source.overlapping)


def test_a_video_that_was_not_edited_is_kept_and_not_edited() -> None:
    for name in CASE.edits:
        assert right(scores(CASE, name, CASE.frames())) == ["kept", "motion_kept"]


def test_a_wrong_colour_is_not_edited_and_a_wrong_ground_is_not_kept() -> None:
    asked = CASE.edits["colour"]
    colour = other(asked, "colour", tuple(c for c in OBJECT_COLOURS if c != CASE.shown.entities[0].colour))
    ground = other(asked, "ground", tuple(GROUND_COLOURS))
    assert right(scores(CASE, "colour", painted(CASE, colour).frames())) == ["kept", "motion_kept"]
    assert right(scores(CASE, "colour", painted(CASE, ground).frames())) == ["edited", "motion_kept"]


def test_a_shifted_track_is_not_the_motion_of_the_source() -> None:
    found = scores(CASE, "colour", painted(CASE, CASE.edits["colour"], shift=5).frames())
    assert right(found) == ["edited", "kept", "success"]
    assert found["motion_error"] == pytest.approx(5, abs=0.2)


def test_a_frame_without_the_object_counts_as_the_diagonal_and_an_empty_video_as_nothing_right() -> None:
    frames = painted(CASE, CASE.edits["colour"]).frames()
    frames[3] = frames[3, 0, 0]
    assert scores(CASE, "colour", frames)["motion_error"] == pytest.approx(LOST / len(frames), abs=0.2)
    empty = np.full_like(frames, 240)
    assert scores(CASE, "colour", empty) | {"occlusion_order": 0} == {
        **dict.fromkeys(("edited", "kept", "motion_kept", "success", "occlusion_order"), 0),
        "motion_error": LOST,
    }
    assert right(scores(CROSSING, "ground", empty)) == []


def test_objects_that_blend_into_one_or_never_meet_have_no_order() -> None:
    scene = painted(CROSSING, CROSSING.edits["ground"])
    behind, before = scene.layers
    alone = replace(scene, layers=(before,))
    assert right(scores(CROSSING, "ground", alone.frames())) == []
    centre = np.tile(np.array([[50, 50]], np.float32), (len(before.track), 1))
    apart = (replace(before, track=replace(before.track, centre=centre * 0.25)), replace(behind, track=before.track))
    apart = (apart[0], replace(behind, track=replace(behind.track, centre=centre)))
    assert scores(CROSSING, "ground", replace(scene, layers=apart).frames())["occlusion_order"] == 0


def test_a_caption_that_changes_nothing_asks_for_no_edit() -> None:
    found = score_edit(CASE.source, CASE.caption, CASE.frames())
    assert found["edited"] is None
    assert right(found) == ["kept", "motion_kept", "success"]


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(BadRequest, match="has 2 object.* and the source clip 1"):
        score_edit(CASE.source, CROSSING.caption, CASE.frames())
    with pytest.raises(BadRequest, match="has 8 frames of 64x64 pixels.*source of 16 frames"):
        score_edit(CASE.source, CASE.caption, CASE.frames()[:8])
    with pytest.raises(BadRequest, match="does not show 2 object"):
        Source.read(CASE.frames(), objects=2)


# ------------------------------------------------------------------------------------------------ metric


def footage(folder: Path, name: str, scene: Scene, caption: str) -> Footage:
    """An edit as a method leaves it: an mp4."""
    writer = VideoWriter(folder / f"{name}.mp4", 8)
    writer.write(scene.frames())
    writer.close()
    return Footage(name, writer.path, (caption,), (range(writer.frames),))


def test_the_metric_finds_the_source_of_an_edit_by_its_name(tmp_path: Path) -> None:
    sources = write_cases(ONE[:2], tmp_path / "sources").parent
    metric = EditOracle(str(sources))
    assert metric.columns == ("edited", "kept", "motion_kept", "success")
    for case in ONE[:2]:
        for name, shown in case.edits.items():
            edit = footage(tmp_path, f"{case.name}_{name}", painted(case, shown), shown.caption)
            assert right(dict(metric.score(edit))) == list(metric.columns)
    stray = footage(tmp_path, "dog", CASE.scene, CASE.caption)
    with pytest.raises(BadRequest, match="has no clip of which 'dog' is an edit"):
        metric.score(stray)
    one = EditOracle(str(sources / f"{CASE.name}.mp4")).score(stray)
    assert (one["edited"], one["success"]) == (None, 1)


def test_footage_that_names_its_source_needs_no_other(tmp_path: Path) -> None:
    sources = write_cases([CASE], tmp_path / "sources").parent
    edit = replace(footage(tmp_path, "dog", CASE.scene, CASE.caption), source=sources / f"{CASE.name}.mp4")
    assert EditOracle(None).score(edit)["success"] == 1


def test_the_metric_of_two_objects_has_their_order_as_a_column(tmp_path: Path) -> None:
    sources = write_cases([CROSSING], tmp_path / "sources").parent
    metric = EditOracle(str(sources), objects=2)
    shown = CROSSING.edits["front_colour"]
    edit = footage(tmp_path, f"{CROSSING.name}_front_colour", painted(CROSSING, shown), shown.caption)
    assert right(dict(metric.score(edit))) == list(metric.columns)
    assert metric.columns[-1] == "occlusion_order"


def test_the_metric_needs_a_source_and_one_caption(tmp_path: Path) -> None:
    stray = footage(tmp_path, "dog", CASE.scene, CASE.caption)
    with pytest.raises(BadRequest, match="metrics.edit_oracle.source="):
        EditOracle(None).score(stray)
    story = replace(footage(tmp_path, CASE.name, CASE.scene, CASE.caption), captions=("a", "b"))
    with pytest.raises(BadRequest, match="has 2 captions; an edit has one"):
        EditOracle(str(tmp_path)).score(story)


def test_clips_are_read_as_well_from_the_files_that_are_written(tmp_path: Path) -> None:
    write_cases(ONE[:2], tmp_path)
    for case in ONE[:2]:
        found = Source.read(read_video(tmp_path / f"{case.name}.mp4"))
        assert found.shown == case.shown
        assert np.abs(found.tracks - case.source.tracks).max() < 0.5
