"""Depth maps of frames from a published estimator of relative inverse depth, such as DPT-Hybrid MiDaS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vidgen_core.errors import BadRequest
from vidgen_core.models.loading import found, located, picture_processor, quiet

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
    maps = []
    with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
        for part in frames.cpu().split(frames_at_once):
            seen = processor(images=list(part.numpy()), return_tensors="pt", input_data_format="channels_first")
            maps.append(model(seen["pixel_values"].to(device)).predicted_depth.float().cpu())
    return torch.cat(maps)


def _loaded(estimator: str) -> tuple[Any, Any]:
    """The processor and the model, float32, in evaluation."""
    import transformers

    source = found(estimator)
    if source is None:
        raise BadRequest(
            f"There is no depth estimator in '{located(estimator)}'. Give a folder or a hub id 'owner/name'."
        )
    try:
        with quiet():
            of_model, of_pictures = _subfolders(source)
            config = transformers.AutoConfig.from_pretrained(source, **of_model)
            _refuse_distance(estimator, config)
            processor = picture_processor("DPTImageProcessor").from_pretrained(source, **of_pictures)
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


def brings_estimator(model: str) -> bool:
    """Whether a folder or hub id of a model has a depth estimator among its parts.

    Without network and with none of it here, yes: to read it then fails by name, where another would be taken silently.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    source = found(model)
    try:
        return source is not None and _is_pipeline(source)
    except LocalEntryNotFoundError:
        return True


def _subfolders(source: str) -> tuple[dict[str, str], dict[str, str]]:
    """Where the model and the processor lie: at the top, or as parts of a pipeline."""
    if _is_pipeline(source):
        return {"subfolder": "depth_estimator"}, {"subfolder": "feature_extractor"}
    return {}, {}


def _is_pipeline(source: str) -> bool:
    # Raises LocalEntryNotFoundError without network, which says nothing of what the repository holds.
    if Path(source).is_dir():
        return (Path(source) / "depth_estimator").is_dir()
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if isinstance(try_to_load_from_cache(source, "config.json"), str):
        return False
    try:
        hf_hub_download(source, "depth_estimator/config.json")
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return False
    return True


def _refuse_distance(estimator: str, config: Any) -> None:
    metric = getattr(config, "depth_estimation_type", "relative") == "metric"
    if config.model_type not in INVERSE_DEPTH or metric:
        kind = f"metric {config.model_type}" if metric else config.model_type
        raise BadRequest(
            f"The model '{estimator}' ({kind}) estimates no relative inverse depth, which this method is tuned on. Use "
            "a DPT or Depth Anything model, or give its maps as a file with inverted=true."
        )
