"""A published checkpoint as files that vidgen reads: what `vidgen convert` does.

The core knows no published layout. A plugin's card may name a ``converter``, a function ``(tensors) -> Converted``, or
None where the names are not those of its layout; the core reads the file, asks each, accounts for every tensor, and
writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.instantiate import instantiate
from vidgen_core.plugin import discover

if TYPE_CHECKING:
    from torch import Tensor

SCHEDULER_FILE = "scheduler/scheduler_config.json"
"""Where a folder of diffusers has its scheduler."""


@dataclass(frozen=True)
class Converted:
    """What a plugin makes of a published checkpoint: each of its tensors goes into one file, or is left out.

    Attributes:
        files: Path below the output folder, ``*.safetensors`` -> the tensors of that file by name.
        use: The command that uses them; ``{folder}`` stands for the output folder.
        left_out: Beginning of published names -> why no file holds them.
        configs: Path below the output folder, ``*.json`` -> what that file says.
        added: Name -> how many numbers of that tensor the checkpoint does not hold, such as zeros of new channels.
    """

    files: Mapping[str, Mapping[str, Tensor]]
    use: str
    left_out: Mapping[str, str]
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    added: Mapping[str, int] = field(default_factory=dict)


def convert(file: Path, folder: Path) -> list[str]:
    """Convert a checkpoint and return what the user is told of it; the last lines name the files.

    The scheduler that a file says it was trained with goes along, in the place of the one that its layout stands for.
    Tensors are mapped from the file and written as they are: memory holds no copy of them.

    Args:
        folder: Made by this; it may be there and empty.

    Raises:
        BadRequest: the file is not there, damaged, code, or of no layout that an installed plugin knows; or the folder
            holds something.
        VidgenError: a converter lost tensors, or the disk refused. In both cases nothing is left behind.
    """
    from vidgen_core.models.tuned import read_tensors, scheduler_of
    from vidgen_core.training.disk import put_whole

    _check_places(file, folder)
    tensors, _ = read_tensors(file)
    plugin, made = _converted(tensors, file)
    left_out, scheduler = _accounted(plugin, tensors, made), scheduler_of(file)
    if scheduler is not None and SCHEDULER_FILE in made.configs:
        made = replace(made, configs={**made.configs, SCHEDULER_FILE: scheduler})
    folder.parent.mkdir(parents=True, exist_ok=True)
    put_whole(
        folder.resolve(),
        lambda fresh: _write(made, fresh, scheduler),
        "Nothing was written",
        "free some space there, or give another output.dir",
    )
    return [
        f"'{file}' is in the layout of '{plugin}', {len(tensors)} tensors",
        *(f"left out: {count} of '{name}': {made.left_out[name]}" for name, count in left_out.items() if count),
        f"use: {made.use.replace('{folder}', str(folder))}",
        *(str(folder / path) for path in (*made.configs, *made.files)),
    ]


def _check_places(file: Path, folder: Path) -> None:
    if file.is_dir():
        raise BadRequest(
            f"weights={file} is a folder. A model's folder needs no conversion: model.path={file} reads it. Give the "
            "published checkpoint, one file."
        )
    if not file.is_file():
        raise BadRequest(f"weights={file}: there is no such file.")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BadRequest(f"output.dir={folder} is there already and not empty. Give another output.dir.")


def _converted(tensors: Mapping[str, Tensor], file: Path) -> tuple[str, Converted]:
    """The plugin that knows the layout, and what it makes of it."""
    cards = {name: entry.plugin for name, entry in discover().items() if entry.plugin is not None}
    converters = {name: card.converter for name, card in cards.items() if card.converter}
    made = {name: instantiate({"_target_": converter}, tensors=tensors) for name, converter in converters.items()}
    made = {name: one for name, one in made.items() if one is not None}
    if not made:
        example = f" Its first tensor is '{next(iter(tensors))}'." if tensors else " It holds no tensors."
        raise BadRequest(
            f"'{file}' is in no layout that an installed plugin converts; there are those of "
            f"{', '.join(converters) or 'none'}.{example} What vidgen or diffusers wrote needs no conversion."
        )
    if len(made) > 1:
        raise VidgenError(f"{' and '.join(made)} all take '{file}' for their own. Uninstall the plugins that err.")
    return made.popitem()


def _accounted(plugin: str, tensors: Mapping[str, Tensor], made: Converted) -> dict[str, int]:
    """How many tensors are left out, by the beginning of their names. Raises VidgenError where some were lost.

    Numbers are counted, not tensors: a layout may join two that another holds apart.
    """
    left_out = {beginning: [n for n in tensors if n.startswith(beginning)] for beginning in made.left_out}
    lost = sum(tensor.numel() for tensor in tensors.values()) + sum(made.added.values())
    lost -= sum(tensor.numel() for file in made.files.values() for tensor in file.values())
    lost -= sum(tensors[name].numel() for names in left_out.values() for name in names)
    if lost:
        raise VidgenError(
            f"The converter of '{plugin}' neither writes nor leaves out {lost} of the numbers in {len(tensors)} "
            "tensors; some were lost, or written twice. Nothing was written; tell the plugin's author."
        )
    return {beginning: len(names) for beginning, names in left_out.items()}


def _write(made: Converted, folder: Path, scheduler: Mapping[str, Any] | None) -> None:
    from safetensors.torch import save_file

    from vidgen_core.models.tuned import SCHEDULER

    metadata = {"format": "pt"} | ({} if scheduler is None else {SCHEDULER: json.dumps(scheduler)})
    for path, tensors in made.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        save_file(_apart(tensors), folder / path, metadata)
    for path, config in made.configs.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As safetensors takes them: laid out without gaps, no two in the same memory."""
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        apart[name] = tensor.clone() if tensor.data_ptr() in taken else tensor.contiguous()
        taken.add(tensor.data_ptr())
    return apart
