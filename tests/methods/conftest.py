"""Helpers of these tests are modules beside them. Fixtures here are of several files; a file may have its own."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from tf_t2v_runs import outspoken, picture_in

from vidgen_core.models.backbone import Backbone


@pytest.fixture
def backbone() -> Backbone:
    """A tiny model with layers over time that say something."""
    return outspoken()


@pytest.fixture
def picture(tmp_path: Path) -> str:
    """A file of random pixels."""
    return picture_in(tmp_path)
