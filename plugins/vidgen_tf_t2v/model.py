"""A published checkpoint as a model: its U-Net beside the VAE and text encoder that all of the layout share."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from vidgen_core.errors import BadRequest, nearest
from vidgen_core.models import loading, unet3d
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.tuned import read_tensors, scheduler_of
from vidgen_tf_t2v.conversion import METHOD, UNET
from vidgen_tf_t2v.ddim import DIFFUSIONS
from vidgen_tf_t2v.published import read_unet, reads_conditions

FRAMES = 16
"""Of the videos that the published checkpoints were trained on, but for those whose name says otherwise."""


def load(
    path: str | None = None,
    parts: str = "ali-vilab/text-to-video-ms-1.7b",
    *,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    trained_frames: int | None = None,
    diffusion: str | None = None,
    head_width: int | None = None,
) -> Backbone:
    """The backbone of a checkpoint in VGen's layout: TF-T2V's, or ModelScope's, from which it was tuned.

    Args:
        path: The checkpoint, ``.pth`` or the same names in another format; or the folder that `vidgen convert` made
            of it.
        parts: A diffusers folder or hub id whose VAE, text encoder and tokenizer are taken.
        variant: Which files of those to prefer, such as ``fp16``.
        trained_frames: Frames the model was trained for; None takes them from the file's name, ``..._32frames_...``, or
            those of the others.
        diffusion: One of ``DIFFUSIONS``; None takes what the file tells, as those do that were trained here, else that
            of the published checkpoints: TF-T2V's for one that reads spatial conditions, or ModelScope's.
        head_width: Features of an attention head, which the file does not tell either; None is as published.

    Raises:
        BadRequest: there is no checkpoint, or it is damaged, code, or of another layout.
    """
    if path is None:
        raise BadRequest(
            "model=tf_t2v needs its checkpoint, which the authors publish on the ModelScope hub as iic/tf-t2v. "
            "Download it and name it: model.path=tft2v_t2v_non_ema_512000.pth."
        )
    if diffusion is not None and diffusion not in DIFFUSIONS:
        raise BadRequest(f"model.diffusion={diffusion} is not known.{nearest(diffusion, DIFFUSIONS)}")
    file = loading.located(path)
    if trained_frames is None:
        named = re.search(r"(\d+)_?frames", file.name)
        trained_frames = int(named[1]) if named else FRAMES
    if file.is_dir():
        return _converted(file, parts, dtype, variant, trained_frames, diffusion)
    if not file.is_file():
        raise BadRequest(f"model.path={path}: there is no such file.")
    if file.name.lower().startswith(("sr_step", "sr600")):
        raise BadRequest(
            f"model.path={path} is SR600 by its name, which has the tensors of ModelScope but refines videos that are "
            f"there: tf_t2v.refine={path}. Rename the file if it is none."
        )
    tensors, _ = read_tensors(file)
    published = "v_zero_snr" if reads_conditions(tensors) else "eps"
    trained = None if diffusion else scheduler_of(file)
    unet = read_unet(tensors, str(file), dtype, head_width)
    backbone = unet3d.load(parts, dtype=dtype, variant=variant, trained_frames=trained_frames, denoiser=unet)
    backbone.scheduler_config = dict(trained or DIFFUSIONS[diffusion or published])
    others = {name: digest for name, digest in backbone.weights.items() if not name.startswith("unet/")}
    backbone.weights = {f"unet/{file.name}": loading.file_hash(file), **others}
    return backbone


def _converted(
    folder: Path, parts: str, dtype: torch.dtype, variant: str | None, trained_frames: int, diffusion: str | None
) -> Backbone:
    from diffusers import UNet3DConditionModel

    unet = loading.load_component(UNet3DConditionModel, str(folder), "unet", dtype)
    added = folder / METHOD
    unet.carried = read_tensors(added)[0] if added.is_file() else {}
    backbone = unet3d.load(parts, dtype=dtype, variant=variant, trained_frames=trained_frames, denoiser=unet)
    backbone.scheduler_config = dict(DIFFUSIONS[diffusion]) if diffusion else loading.read_scheduler_config(str(folder))
    others = {name: digest for name, digest in backbone.weights.items() if not name.startswith("unet/")}
    files = [folder / UNET, *([added] if added.is_file() else [])]
    backbone.weights = {f"unet/{file.name}": loading.file_hash(file) for file in files} | others
    return backbone
