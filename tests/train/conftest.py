import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from trainings import write_stories


@pytest.fixture(scope="session")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stories(tmp_path_factory.mktemp("stories"))
