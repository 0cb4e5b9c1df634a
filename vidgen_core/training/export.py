"""The result of a training: a model folder that ``model.path=`` takes, and what methods learnt."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from vidgen_core.placement import DTYPES
from vidgen_core.training.disk import disk_explained

if TYPE_CHECKING:
    from vidgen_core.models.backbone import Backbone
    from vidgen_core.run import Run
    from vidgen_core.training.learner import Learner


def write_result(run: Run, learner: Learner, folder: Path, dtype: str) -> list[Path]:
    """Write ``model/`` where the base model was trained and ``methods/<name>.safetensors`` where methods learnt.

    Each is written beside its place and put there whole.
    """
    backbone, written = run.backbone, []
    trained = {id(parameter) for parameter in learner.trainables.values()}
    trained -= {id(parameter) for parameter in backbone.methods.parameters()}
    if any(id(parameter) in trained for parameter in backbone.parameters()):
        written.append(_whole(folder / "model", lambda fresh: backbone.save(fresh, DTYPES[dtype])))
    if any(True for _ in backbone.methods.parameters()):
        written.append(_whole(folder / "methods", lambda fresh: _save_methods(backbone, fresh)))
    return written


def _save_methods(backbone: Backbone, folder: Path) -> None:
    folder.mkdir()
    for name, module in backbone.methods.items():
        state: dict[str, Any] = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
        save_file(state, folder / f"{name}.safetensors")


def _whole(path: Path, write: Callable[[Path], None]) -> Path:
    fresh = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with disk_explained(path, "The last checkpoint stays"):
            write(fresh)
            shutil.rmtree(path, ignore_errors=True)
            fresh.rename(path)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return path
