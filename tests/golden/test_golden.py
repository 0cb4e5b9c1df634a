"""Each golden case, compared tensor by tensor with what the published implementation computed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from golden_cases import ROOT, cases, drawn, layout

FOLDERS = cases()
SERVED = {file.stem for file in (Path(__file__).parent / "adapters").glob("*.py")}


@pytest.mark.parametrize("folder", FOLDERS, ids=[f"{f.parent.name}/{f.name}" for f in FOLDERS])
def test_case(folder: Path, tmp_path: Path) -> None:
    method = folder.parent.name
    if method not in SERVED:
        pytest.skip(f"no plugin serves {method} yet")
    adapters = importlib.import_module(f"adapters.{method}")
    case = drawn(folder)
    assert case["kind"] in adapters.ADAPTERS, f"no adapter for the kind {case['kind']!r} of {method}"
    found = adapters.ADAPTERS[case["kind"]](case, tmp_path / "model")
    # A gradient that is zero but for rounding (a bias before a norm of its own channel) is known to no more than that.
    gradients = [value.abs().max() for name, value in case["expected"].items() if name.startswith("grad.")]
    rounding = torch.finfo(torch.float32).eps * max(gradients, default=0)
    for name, expected in case["expected"].items():
        assert name in found, f"{name} was not computed"
        assert found[name].shape == expected.shape
        computed, wanted = found[name].double(), expected.double()
        assert torch.equal(computed.isnan(), wanted.isnan()), f"{name} has a number where there is none, or none"
        error, scale = (computed - wanted).nan_to_num().abs().max(), wanted.nan_to_num().abs().max()
        floor = rounding if name.startswith("grad.") else 0
        assert error <= max(case["tolerance"] * scale, floor), f"{name} is off by {error:.2e}"


@pytest.mark.skipif(not FOLDERS, reason=f"no golden cases under {ROOT}")
def test_there_are_cases_of_a_served_method() -> None:
    assert any(folder.parent.name in SERVED for folder in FOLDERS)


def test_modelscope_layout_loads_with_every_key_accounted_for() -> None:
    from diffusers import UNet3DConditionModel

    from vidgen_core.models.loading import check_layout

    shapes = layout("modelscope_unet")
    if shapes is None:
        pytest.skip(f"no layouts under {ROOT}")
    with torch.device("meta"):
        unet = UNet3DConditionModel(
            sample_size=32, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=1024, attention_head_dim=64
        )
    check_layout(unet, shapes, "modelscope_unet")


STABLE_1 = {"cross_attention_dim": 768, "attention_head_dim": 8}
STABLE_2 = {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True}
IMAGE_LAYOUTS = {
    "sd15_unet2d": STABLE_1,
    "sd2_depth_unet2d": {**STABLE_2, "in_channels": 5, "out_channels": 4},
}
INFLATED_LAYOUTS = {
    "tune_a_video_sd14_unet": STABLE_1,
    "depth_one_shot_sd2_depth_unet": {**STABLE_2, "in_channels": 5, "out_channels": 4},
}


@pytest.mark.parametrize("name", [*IMAGE_LAYOUTS, *INFLATED_LAYOUTS])
def test_full_size_image_models_and_their_inflation_load_with_every_key_accounted_for(name: str) -> None:
    from diffusers import UNet2DConditionModel
    from vidgen_tune_a_video.inflated import st_attention
    from vidgen_tune_a_video.published import to_published

    from vidgen_core.models.loading import check_names
    from vidgen_core.models.unet2d import ImageBackbone

    shapes = layout(name)
    if shapes is None:
        pytest.skip(f"no layouts under {ROOT}")
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, **{**IMAGE_LAYOUTS, **INFLATED_LAYOUTS}[name])
        if name in IMAGE_LAYOUTS:
            own = unet.state_dict()
        else:
            with st_attention(ImageBackbone(unet), seed=0):
                own = to_published(unet.state_dict())
    check_names({key: list(tensor.shape) for key, tensor in own.items()}, shapes, name)
