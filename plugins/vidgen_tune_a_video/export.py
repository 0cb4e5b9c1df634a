"""python -m vidgen_tune_a_video.export TUNED FOLDER    Write a tuned model whole, in the published program's layout.

The U-Net in it has the names and the configuration of that program's own, as safetensors; the other parts and
``model_index.json`` are the image model's, as diffusers writes them. ``model.path=`` takes the folder as well.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from vidgen_core.config import compose
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.models.backbone import Backbone
from vidgen_core.placement import DTYPES
from vidgen_core.request import single_scene
from vidgen_core.run import Run, moments_of, opened
from vidgen_core.training.disk import put_whole
from vidgen_tune_a_video.method import TuneAVideo
from vidgen_tune_a_video.published import as_3d, to_published

AS_TRAINED = {"placement.device": "cpu", "placement.dtype": "fp32"}
"""Where the model is put together: elsewhere its weights would be rounded before they are written."""

UNWRITTEN = ("Nothing was written", "free some space there, or choose another folder")


def export(tuned: str, folder: Path, method: str = "tune_a_video", dtype: str = "fp32") -> Path:
    """The model of a tuned run with what was tuned, as a pipeline folder; returns it.

    It appears whole or not at all.

    Raises:
        BadRequest: it is there already, or ``tuned`` is no tuned run, or one of an inflation that has no published
            layout; VidgenError where it cannot be written.
    """
    if folder.exists():
        raise BadRequest(f"'{folder}' is there already. Choose another folder.")
    # No video is made, so the request is not prepared: its clip may be gone, and any prompt will do.
    composed = compose([], {"method": method, "tuned": tuned, "prompt": "none", **AS_TRAINED})
    inflation = composed.methods[method].get("inflation", TuneAVideo.inflation)
    if inflation != TuneAVideo.inflation:
        raise BadRequest(
            f"'{tuned}' was tuned with inflation={inflation}, for whose layers the published layout has no place. Runs "
            f"of inflation={TuneAVideo.inflation} can be written in it."
        )
    run = Run(single_scene(composed.request), composed.config, moments_of(composed))
    with opened(run):
        return put_whole(folder, lambda fresh: _write(run.backbone, fresh, DTYPES[dtype]), *UNWRITTEN)


def _write(backbone: Backbone, folder: Path, dtype: torch.dtype) -> None:
    backbone.save(folder, dtype)
    unet = folder / "unet"
    (weights,) = unet.glob("*.safetensors")
    save_file(to_published(load_file(weights)), weights, {"format": "pt"})
    config = json.loads((unet / "config.json").read_text())
    (unet / "config.json").write_text(json.dumps(as_3d(config), indent=2, sort_keys=True) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tuned", help="folder of a tuned run")
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument("--method", default="tune_a_video", help="depth for a run of method=depth")
    parser.add_argument("--dtype", default="fp32", choices=[*DTYPES])
    options = parser.parse_args(arguments)
    try:
        print(export(options.tuned, options.folder, options.method, options.dtype))
    except VidgenError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, BadRequest) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
