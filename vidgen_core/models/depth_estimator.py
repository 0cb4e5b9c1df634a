"""Depth maps of frames from a published estimator of relative inverse depth, such as DPT-Hybrid MiDaS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidgen_core.errors import BadRequest
from vidgen_core.models.loading import PACKAGE, located, quiet

INVERSE_DEPTH = ("dpt", "depth_anything")
"""Model types that predict inverse depth, near is large. Others predict distance."""

UNUSED = "neck.fusion_stage.layers.0.residual_layer1."
"""Weights of DPT that its forward never reads, and that published checkpoints leave out."""


def estimate(frames: Tensor, estimator: str, device: torch.device | str = "cpu", frames_at_once: int = 8) -> Tensor:
    """The estimator's ``predicted_depth`` of every frame; the model lives only as long as this call.

    Args:
        frames: The original frames (F, 3, H, W), uint8 RGB. The estimator's own processor resizes and scales them.
        estimator: A folder, ``pkg://package/folder`` or a hub id, either of a depth estimation model of transformers
            (``Intel/dpt-hybrid-midas``) or of a depth-to-image pipeline that has one in its parts ``depth_estimator``
            and ``feature_extractor`` (``stabilityai/stable-diffusion-2-depth``).
        device: Where the model computes, in float32 whatever the weights are: its batch norm does not bear half.
        frames_at_once: Frames that go through the model together.

    Returns:
        (F, h', w') float32 on the CPU, larger is nearer, any scale; h' and w' are the processor's.

    Raises:
        BadRequest: there is no such model, its weights do not fit, or it predicts distance.
    """
    processor, model = _loaded(estimator)
    model = model.to(device)
    found = []
    with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
        for part in frames.cpu().split(frames_at_once):
            seen = processor(images=list(part.numpy()), return_tensors="pt", input_data_format="channels_first")
            found.append(model(seen["pixel_values"].to(device)).predicted_depth.float().cpu())
    return torch.cat(found)


def _loaded(estimator: str) -> tuple[Any, Any]:
    """The processor and the model, float32, in evaluation."""
    import transformers

    folder = located(estimator)
    if not folder.is_dir() and (estimator.startswith((PACKAGE, ".", "/", "~")) or estimator.count("/") != 1):
        raise BadRequest(f"There is no depth estimator in '{folder}'. Give a folder or a hub id 'owner/name'.")
    source = str(folder) if folder.is_dir() else estimator
    # The processor without torchvision has a name of its own since transformers 5.
    pil = "DPTImageProcessorPil"
    pictures = getattr(transformers, pil if hasattr(transformers, pil) else "DPTImageProcessor")
    try:
        with quiet():
            of_model, of_pictures = _subfolders(source)
            config = transformers.AutoConfig.from_pretrained(source, **of_model)
            _refuse_distance(estimator, config)
            processor = pictures.from_pretrained(source, **of_pictures)
            model, info = transformers.AutoModelForDepthEstimation.from_pretrained(
                source, config=config, output_loading_info=True, **of_model
            )
    except BadRequest:
        raise
    except Exception as error:  # OSError, ValueError, KeyError, errors of the network: all are files
        reason = " ".join(str(error).split())[:200]
        raise BadRequest(
            f"The depth estimator '{estimator}' cannot be read ({type(error).__name__}: {reason}). Give a folder or a "
            "hub id of a DPT or Depth Anything model, or of a Stable Diffusion 2 depth model."
        ) from error
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(UNUSED))
    if missing:
        raise BadRequest(
            f"The weights of the depth estimator '{estimator}' lack {len(missing)} that it needs, such as {missing[0]}."
        )
    return processor, model.float().eval()


def _subfolders(source: str) -> tuple[dict[str, str], dict[str, str]]:
    """Where the model and the processor lie: at the top, or as parts of a pipeline."""
    nested = {"subfolder": "depth_estimator"}, {"subfolder": "feature_extractor"}
    if Path(source).is_dir():
        return nested if (Path(source) / "depth_estimator").is_dir() else ({}, {})
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if isinstance(try_to_load_from_cache(source, "config.json"), str):
        return {}, {}
    try:
        hf_hub_download(source, "depth_estimator/config.json")
    except LocalEntryNotFoundError:  # no network, which says nothing of what the repository holds
        raise
    except EntryNotFoundError:
        return {}, {}
    return nested


def _refuse_distance(estimator: str, config: Any) -> None:
    metric = getattr(config, "depth_estimation_type", "relative") == "metric"
    if config.model_type not in INVERSE_DEPTH or metric:
        kind = f"metric {config.model_type}" if metric else config.model_type
        raise BadRequest(
            f"The model '{estimator}' ({kind}) estimates no relative inverse depth, which this method is tuned on. Use "
            "a DPT or Depth Anything model, or give its maps as a file with inverted=true."
        )
