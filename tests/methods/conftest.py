"""Helpers of these tests are modules beside them. Fixtures here are of several files; a file may have its own."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from one_shot import QUICK, tune, write_clip
from tf_t2v_runs import outspoken, picture_in
from vidgen_tune_a_video.export import export

from vidgen_core.models.backbone import Backbone

AS_PUBLISHED = {
    "tune_a_video.strength": 1,
    "tune_a_video.trainable_modules": ["attn1.to_q", "attn2.to_q", "attn_temp"],
}
"""In place of what suits the embedded model."""


@pytest.fixture
def backbone() -> Backbone:
    """A tiny model with layers over time that say something."""
    return outspoken()


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """A file of random pixels."""
    return picture_in(tmp_path)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of a moving square."""
    return write_clip(tmp_path_factory.mktemp("clip") / "square.mp4")


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """The tiny image model, tuned on the clip."""
    return tune(tmp_path_factory.mktemp("tuned") / "run", clip)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """The embedded image model, tuned on the clip as published."""
    return tune(tmp_path_factory.mktemp("embedded") / "run", clip, model="moving_shapes_image", **AS_PUBLISHED)


@pytest.fixture(scope="session")
def published(embedded: Path, clip: Path) -> dict[str, Any]:
    """How to edit the clip with the same model in the published layout."""
    folder = export(str(embedded), embedded.parent / "published")
    edit = {"video": clip, "num_frames": 4, "height": 64, "width": 64, "model": "moving_shapes_image"}
    return {**QUICK, **edit, **AS_PUBLISHED, "model.path": folder, "tune_a_video.caption": "a square"}
