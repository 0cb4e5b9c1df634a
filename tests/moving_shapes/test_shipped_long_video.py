"""The long-video weights of the embedded model: nothing need be named, and CAM holds the chunks together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vidgen_core as vg


def jumps(folder: Path, **keys: Any) -> np.ndarray:
    """(F - 1,) how much frames differ from the ones before, of 32 frames in two quick steps."""
    quick = {"num_inference_steps": 2, "guidance_scale": 1.0, "output.dir": str(folder)}
    video = vg.generate(method="streaming", num_frames=32, **quick, **keys)
    assert len(video.frames) == 32
    return np.abs(np.diff(video.frames.astype(float), axis=0)).mean((1, 2, 3))


def test_a_long_video_of_the_example_prompt_jumps_less_where_chunks_join_than_without_cam(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    joins = [15, 23]
    with_cam = jumps(tmp_path / "with")
    assert "a red circle bounces up and down on a white background" in capsys.readouterr().err
    without = jumps(tmp_path / "without", **{"streaming.cam": False})
    assert np.array_equal(with_cam[:15], without[:15])
    assert (with_cam[joins] < 0.7 * without[joins]).all()
