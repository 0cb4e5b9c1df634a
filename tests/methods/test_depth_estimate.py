"""Estimating depth: the published layouts load, and maps are what the model itself computes."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from depth_models import PROCESSOR, SIDE, dpt, save
from safetensors.torch import load_file, save_file

from vidgen_core.errors import BadRequest
from vidgen_core.models.depth_estimator import estimate


@pytest.fixture
def frames():
    """(F, 3, H, W) of another size than the model's."""
    return torch.randint(0, 256, (5, 3, 24, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("parts", [("", ""), ("depth_estimator", "feature_extractor")], ids=["model", "pipeline"])
def test_maps_are_what_the_model_predicts_of_normalised_frames(tmp_path, frames, parts) -> None:
    model = dpt()
    folder = save(tmp_path, model, *parts)
    found = estimate(frames, folder, frames_at_once=2)
    assert found.shape == (5, SIDE, SIDE) and found.dtype == torch.float32
    colour = torch.tensor([0, 51, 255], dtype=torch.uint8)[None, :, None, None]
    seen = torch.tensor([-1, -0.6, 1])[None, :, None, None].expand(1, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = model(seen).predicted_depth
    assert torch.allclose(estimate(colour.expand(1, 3, 24, 40), folder), expected, rtol=1e-4)


def test_frames_do_not_know_of_one_another(tmp_path, frames) -> None:
    folder = save(tmp_path, dpt(use_batch_norm_in_fusion_residual=True))
    together, alone = estimate(frames, folder), estimate(frames, folder, frames_at_once=1)
    assert torch.allclose(together, alone, rtol=1e-4) and (together[0] - together[1]).abs().max() > 0


def test_half_precision_weights_compute_in_float32(tmp_path, frames) -> None:
    model = dpt(use_batch_norm_in_fusion_residual=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = estimate(frames, save(tmp_path, model.half()))
    assert found.dtype == torch.float32
    assert torch.equal(found, estimate(frames, save(tmp_path / "whole", model.float())))


def test_depth_anything_is_an_estimator_too(tmp_path, frames) -> None:
    backbone = transformers.Dinov2Config(
        image_size=28,
        patch_size=14,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    sizes = {"reassemble_hidden_size": 16, "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}

    def saved(name, **keys):
        config = transformers.DepthAnythingConfig(backbone_config=backbone, patch_size=14, **sizes, **keys)
        folder = save(tmp_path / name, transformers.DepthAnythingForDepthEstimation(config))
        file = tmp_path / name / "preprocessor_config.json"
        file.write_text(json.dumps(PROCESSOR | {"size": 28, "keep_aspect_ratio": True, "ensure_multiple_of": 14}))
        return folder

    assert estimate(frames, saved("relative")).shape == (5, 28, 42)
    with pytest.raises(BadRequest, match=r"\(metric depth_anything\) estimates no relative inverse depth"):
        estimate(frames, saved("metric", depth_estimation_type="metric", max_depth=20))


def test_published_checkpoints_leave_out_what_is_never_read(tmp_path, frames) -> None:
    folder, file = save(tmp_path, dpt()), tmp_path / "model.safetensors"
    before, state = estimate(frames, folder), load_file(file)
    unread = {name for name in state if name.startswith("neck.fusion_stage.layers.0.residual_layer1.")}
    save_file({name: tensor for name, tensor in state.items() if name not in unread}, file, {"format": "pt"})
    assert torch.equal(estimate(frames, folder), before)
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("head")}, file, {"format": "pt"})
    with pytest.raises(BadRequest, match="lack 6 that it needs, such as head.head.0.bias"):
        estimate(frames, folder)


def empty(folder) -> None:
    folder.mkdir()


def truncated(folder) -> None:
    save(folder, dpt())
    (folder / "model.safetensors").write_bytes(b"0000")


def no_processor(folder) -> None:
    dpt().save_pretrained(folder)


def of_text(folder) -> None:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty, "cannot be read"),
        (truncated, "cannot be read"),
        (no_processor, "cannot be read"),
        (of_text, r"\(bert\) estimates no relative inverse depth"),
        (lambda folder: None, "There is no depth estimator in"),
    ],
)
def test_what_is_no_estimator_is_told_in_one_paragraph(tmp_path, frames, make, message) -> None:
    make(tmp_path / "estimator")
    with pytest.raises(BadRequest, match=message) as error:
        estimate(frames, str(tmp_path / "estimator"))
    assert "\n" not in str(error.value) and "estimator" in str(error.value)
