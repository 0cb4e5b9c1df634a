"""Full-size published checkpoints of VGen's layout: every name and shape has its place, without weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from vidgen_tf_t2v.conversion import METHOD, PUBLISHED, UNET, converted
from vidgen_tf_t2v.published import models, read_unet

from vidgen_core.errors import BadRequest

sys.path.insert(0, str(Path(__file__).parent))
from golden_cases import ROOT, layout

COMPOSED = {"depth", "sketch", "single_sketch", "motion", "local_image", "masked"}


def shapes_of(name: str) -> dict[str, list[int]]:
    shapes = layout(name)
    if shapes is None:
        pytest.skip(f"no layouts under {ROOT}")
    return shapes


@pytest.mark.parametrize(
    ("name", "parameters", "conditions"),
    [
        ("tf_t2v_unet", 1_416_504_900, set()),
        ("tf_t2v_vcomposer_unet", 1_416_584_436, COMPOSED),
        ("vgen_modelscope_unet", 1_411_233_860, set()),
        ("vgen_sr600_unet", 1_411_233_860, set()),
    ],
)
def test_the_layout_loads_with_every_key_accounted_for(name: str, parameters: int, conditions: set[str]) -> None:
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes_of(name).items()}
    unet, own, _ = models(shapes_of(name), name)
    assert set(own.encoders) == conditions
    assert sum(p.numel() for network in (unet, own) for p in network.parameters()) == parameters
    read = read_unet(tensors, name, torch.float32)
    assert sum(t.numel() for t in (*read.state_dict().values(), *read.carried.values())) == parameters
    assert dict(read.config)["in_channels"] == 4


def test_the_image_layers_of_the_published_checkpoint_make_four_tokens() -> None:
    _, own, _ = models(shapes_of("tf_t2v_unet"), "tf_t2v_unet")
    assert own.image(torch.empty(2, 1024, device="meta")).shape == (2, 4, 1024)


@pytest.mark.parametrize("name", ["tf_t2v_unet", "tf_t2v_vcomposer_unet", "vgen_modelscope_unet"])
def test_the_layout_is_converted_to_that_of_diffusers_and_back(name: str) -> None:
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes_of(name).items()}
    files = converted(tensors).files
    assert len(files[UNET]) == 1480
    if METHOD in files:
        trained = {f"denoiser.{key}": tensor for key, tensor in files[UNET].items()} | dict(files[METHOD])
        back = converted(trained).files[PUBLISHED]
        assert {key: list(tensor.shape) for key, tensor in back.items()} == shapes_of(name)


def test_what_is_missing_and_what_is_too_much_is_named() -> None:
    shapes = shapes_of("tf_t2v_vcomposer_unet")
    lost = "depth_embedding_after.layers.0.0.fn.to_out.0.bias"
    changed = {name: shape for name, shape in shapes.items() if name != lost} | {"stranger.weight": [1]}
    with pytest.raises(BadRequest, match=rf"1 missing: {lost}; 1 unexpected: stranger.weight"):
        models(changed, "a.pth")
    with pytest.raises(BadRequest, match=r"1 of another shape: .*'out.2.bias', \[5\], \[4\]"):
        models({**shapes, "out.2.bias": [5]}, "a.pth")


@pytest.mark.parametrize("name", ["modelscope_unet", "i2vgen_xl_unet", "streaming_t2v"])
def test_other_layouts_are_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="no text-to-video checkpoint in VGen's layout|do not fit the model"):
        models(shapes_of(name), name)
