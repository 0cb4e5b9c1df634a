"""The result of a training: a model folder that ``model.path=`` takes, and what methods learnt, for ``tuned=``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file
from torch import Tensor

from vidgen_core.models.tuned import BASE, DENOISER, SCHEDULER, base_of, put_by
from vidgen_core.moments import CORE, OBJECTIVE
from vidgen_core.placement import DTYPES
from vidgen_core.training.disk import put_whole

if TYPE_CHECKING:
    from vidgen_core.models.backbone import Backbone
    from vidgen_core.run import Run
    from vidgen_core.training.learner import Learner

STAYS = "The last checkpoint stays"


def write_result(run: Run, learner: Learner, folder: Path, dtype: str) -> list[Path]:
    """Write ``model/`` where the model itself was trained and ``methods/<name>.safetensors`` where methods learnt.

    A method's file holds only what it changed: its own modules, and the tensors of the model that it trained, now or
    before, with the hash of the model they belong to and its scheduler. Each is written beside its place and put there
    whole.
    """
    backbone, written = run.backbone, []
    learnt = {name: _learnt_by(name, backbone, learner) for name in run.moments.methods if name != OBJECTIVE}
    learnt = {name: tensors for name, tensors in learnt.items() if tensors}
    whole = {id(p) for name, p in learner.trainables.items() if learner.trainables.owners[name] in (CORE, OBJECTIVE)}
    whole -= {id(parameter) for parameter in backbone.methods.parameters()}
    if any(id(parameter) in whole for parameter in backbone.parameters()):
        written.append(put_whole(folder / "model", lambda fresh: backbone.save(fresh, DTYPES[dtype]), STAYS))
    if learnt:
        written.append(
            put_whole(folder / "methods", lambda fresh: _save_methods(learnt, backbone, fresh, dtype), STAYS)
        )
    return written


def _learnt_by(method: str, backbone: Backbone, learner: Learner) -> dict[str, Tensor]:
    own = backbone.methods[method].state_dict() if method in backbone.methods else {}
    inside = {id(parameter) for parameter in backbone.methods.parameters()}
    chosen = learner.trainables
    # What the training went on from and left as it was: the others were learnt beside it.
    before = {f"{DENOISER}{name}": tensor for name, tensor in put_by(backbone.denoiser, method).items()}
    own |= {name: tensor for name, tensor in before.items() if name not in chosen}
    return own | {n: p for n, p in chosen.items() if chosen.owners[n] == method and id(p) not in inside}


def _save_methods(learnt: Mapping[str, Mapping[str, Tensor]], backbone: Backbone, folder: Path, dtype: str) -> None:
    folder.mkdir()
    metadata = {BASE: base_of(backbone), SCHEDULER: json.dumps(dict(backbone.scheduler_config))}
    for name, tensors in learnt.items():
        state = {key: value.detach().to("cpu", DTYPES[dtype]).contiguous() for key, value in tensors.items()}
        save_file(state, folder / f"{name}.safetensors", metadata)
