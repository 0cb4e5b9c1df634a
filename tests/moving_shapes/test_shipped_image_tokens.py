"""The image layers beside the embedded video model: a text alone is read as before, an image says what is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from vidgen_moving_shapes.oracle import read
from vidgen_moving_shapes.world import Entity, draw_scene

import vidgen_core as vg
from vidgen_core.config import compose
from vidgen_core.experiments import stages_of

SMALL = {"num_frames": 4, "num_inference_steps": 2, "seed": 3}


def test_without_an_image_it_is_the_model_itself(tmp_path: Path) -> None:
    alone, beside = (
        vg.generate(prompt="a red circle moves right on a white background", **SMALL, **more).frames
        for more in ({"output.dir": str(tmp_path / "a")}, {"method": "tf_t2v", "output.dir": str(tmp_path / "b")})
    )
    assert np.array_equal(alone, beside)


def test_an_image_says_which_colours_are_shown(tmp_path: Path) -> None:
    scene = draw_scene(np.random.default_rng(0), Entity("yellow", "circle"), "stays still", "black")
    Image.fromarray(scene.frames()[8]).save(tmp_path / "image.png")
    keys = {"image": str(tmp_path / "image.png"), "tf_t2v.text": "negative", "output.dir": str(tmp_path / "out")}
    shown = read(vg.generate(method="tf_t2v", num_frames=8, num_inference_steps=6, **keys).frames)
    assert (shown.colour, shown.ground) == ("yellow", "black")


def test_methods_go_together_on_it(tmp_path: Path) -> None:
    keys = {"num_inference_steps": 1, "guidance_scale": 1.0, "output.dir": str(tmp_path)}
    video = vg.generate(method=["tf_t2v", "streaming"], num_frames=20, **keys)
    assert video.frames.shape == (20, 64, 64, 3)


def test_the_stages_that_made_it_train_the_image_layers_alone_on_videos_without_text(tmp_path: Path) -> None:
    stages = stages_of(
        ["experiment=moving_shapes", "stages=[image_tokens,image_tokens_again]", f"output.dir={tmp_path}"], "train"
    )
    learnt_from = []
    for stage in stages:
        composed = compose(stage.overrides, stage.values, entry="train").config
        learnt_from.append(composed["weights"]["tf_t2v"])
        assert composed["trainer"]["trainable"] == "none"
        assert (composed["data"]["images"], composed["data"]["labelled_videos"]) == (0, 0)
        assert composed["model"]["path"] == str(tmp_path / "brief_again" / "model")
    first = str(tmp_path / "image_tokens" / "methods" / "tf_t2v.safetensors")
    assert learnt_from == [None, first]  # anew, whatever the package brings
