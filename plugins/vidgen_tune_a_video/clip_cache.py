"""What is made of a clip once and kept for later runs, beside the weights that it was made for."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vidgen_core.data.latent_cache import save_whole
from vidgen_core.models.loading import located
from vidgen_tune_a_video.published import carried

if TYPE_CHECKING:
    from vidgen_core.run import Run


def beside_the_weights(run: Run, name: str) -> Path | None:
    """The folder of that name beside what was tuned, or in the folder of an inflated model.

    None where the weights are nobody's, lie in no folder here, or are being trained: no file says what they are then.
    """
    if "trainer" in run.config:
        return None
    if run.config["tuned"] is not None:
        tuned = Path(str(run.config["tuned"])).expanduser()
        return (tuned if tuned.is_dir() else tuned.parent) / name
    if not carried(run.backbone.denoiser):
        return None
    folder = located(run.config["model"]["path"])
    # A hub id is no folder here, and one made by its name would be taken for the model.
    return folder / name if folder.is_dir() else None


def read(file: Path | None, names: Collection[str]) -> dict[str, Tensor] | None:
    """The tensors of those names; None where no others were kept there, or what was cannot be read."""
    if file is None:
        return None
    try:
        kept = load_file(file)
    except (OSError, SafetensorError):
        return None
    return kept if kept.keys() == set(names) else None


def write(tensors: dict[str, Tensor], file: Path | None) -> None:
    """Keep tensors: the file appears whole or, where it cannot be written, not at all."""
    if file is None:
        return
    with contextlib.suppress(OSError, SafetensorError):  # a cache that cannot be kept costs time, nothing else
        save_whole(tensors, file)
