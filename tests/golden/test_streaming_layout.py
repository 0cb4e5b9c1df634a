"""The full-size published checkpoint of StreamingT2V: every tensor finds its place, without memory."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from vidgen_streaming.method import Streaming
from vidgen_streaming.networks import Networks, loaded
from vidgen_streaming.published import FROZEN, Parts, check_whole, sorted_parts

from vidgen_core.attention import attentions
from vidgen_core.errors import BadRequest
from vidgen_core.models.image_encoder import from_open_clip

sys.path.insert(0, str(Path(__file__).parent))
from golden_cases import ROOT, layout

FILE = "streaming_t2v.ckpt"


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    shapes = layout("streaming_t2v")
    if shapes is None:
        pytest.skip(f"no layouts under {ROOT}")
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def parts(tensors: dict[str, Tensor]) -> Parts:
    return sorted_parts(tensors)


@pytest.fixture(scope="module")
def unet() -> Any:
    from diffusers import UNet3DConditionModel

    with torch.device("meta"):
        return UNet3DConditionModel(
            sample_size=32, block_out_channels=(320, 640, 1280, 1280), cross_attention_dim=1024, attention_head_dim=64
        )


@pytest.fixture(scope="module")
def networks(parts: Parts, unet: Any) -> Networks:
    return loaded(parts.own, unet, FILE)


def test_every_tensor_is_of_one_part(tensors: dict[str, Tensor], parts: Parts) -> None:
    own = Counter(name.partition(".")[0] for name in parts.own)
    assert own == {"cam": 682, "mergers": 143, "resampler": 4, "mixes": 80}
    assert (len(parts.base), len(parts.image_encoder)) == (1480, 398)
    frozen = [name for name in tensors if name.startswith(FROZEN)]
    taken = [*parts.own.values(), *parts.base.values(), *parts.image_encoder.values(), *(tensors[n] for n in frozen)]
    assert len(tensors) == len(taken) == len(set(map(id, taken))) == 3407


def test_both_memories_load_beside_the_model(networks: Networks, parts: Parts) -> None:
    def millions(part: Any) -> float:
        return sum(p.numel() for p in part.parameters()) / 1e6

    assert millions(networks.cam) == pytest.approx(621.98, abs=0.01)
    assert millions(networks.mergers) == pytest.approx(68.87, abs=0.01)
    assert millions(networks.resampler) == pytest.approx(22.30, abs=0.01)
    assert networks.own().keys() == parts.own.keys()


@pytest.mark.parametrize(
    ("stage", "freeze_base", "millions"),
    [
        ("cam", False, 690.85),  # as published
        ("apm", False, 1579.44),  # as published: all but the model's temporal layers
        ("apm", True, 713.53),  # both memories alone
    ],
)
def test_a_stage_trains_as_many_parameters_as_it_says(
    stage: str, freeze_base: bool, millions: float, networks: Networks, unet: Any
) -> None:
    method = Streaming(overlap=8, stage=stage, freeze_base=freeze_base)
    method.networks = networks
    trained = method.trainable(SimpleNamespace(denoiser=unet))  # type: ignore[arg-type]
    assert sum(p.numel() for p in trained.values()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_mergers_are_as_wide_as_the_skips_of_the_published_list(networks: Networks) -> None:
    assert networks.mergers is not None
    widths = [merger.proj_in.in_features for merger in (*networks.mergers.down, networks.mergers.mid)]
    assert widths == [320, 320, 320, 320, 640, 640, 640, 1280, 1280, 1280, 1280, 1280, 1280]


def test_there_is_a_mix_for_every_text_attention_of_the_model_in_its_order(tensors, parts: Parts, unet: Any) -> None:
    layers = [name for name, module in attentions(unet) if module.is_cross_attention]
    assert len(layers) == 16
    for i, layer in enumerate(layers):
        assert parts.own[f"mixes.{i}.alpha"] is tensors[f"base_model.{layer}.alpha"]


def test_the_models_own_tensors_are_all_there_and_fit(parts: Parts, unet: Any) -> None:
    parts.check(unet, 16, FILE)
    with pytest.raises(BadRequest, match="1 missing: conv_out.bias"):
        Parts(base={name: tensor for name, tensor in parts.base.items() if name != "conv_out.bias"}).check(unet, 16, "")


def test_the_whole_checkpoint_is_found_whole_without_a_model(parts: Parts) -> None:
    check_whole(parts)


LOST = {
    "unet.mid_block.resnets.0.conv1.bias": "1 missing: cam.mid_block.resnets.0.conv1.bias",
    "base_model.cross_attention_merger_mid_block.temporal_transformer.proj_out.bias": "1 missing: mergers.mid.proj_out",
    "base_model.up_blocks.1.attentions.0.transformer_blocks.0.attn2.alpha": r"1 missing: mixes.6.alpha",
    "base_model.up_blocks.1.attentions.0.transformer_blocks.0.attn2.conv.bias": r"1 missing: mixes.6.conv.bias",
    "resampler.context_embedding.2.bias": "1 missing: resampler.2.bias",
}


@pytest.mark.parametrize("lost", LOST)
def test_what_is_missing_is_named(lost: str, tensors: dict[str, Tensor], unet: Any) -> None:
    parts = sorted_parts({name: tensor for name, tensor in tensors.items() if name != lost})
    with pytest.raises(BadRequest, match=LOST[lost]):
        loaded(parts.own, unet, FILE)


def test_a_whole_mix_that_is_missing_is_noticed(tensors: dict[str, Tensor], unet: Any) -> None:
    layer = "base_model.up_blocks.1.attentions.0.transformer_blocks.0.attn2."
    mixed = ("alpha", "conv.weight", "conv.bias", "conv_ln.weight", "conv_ln.bias")
    lost = {layer + name for name in mixed}
    parts = sorted_parts({name: tensor for name, tensor in tensors.items() if name not in lost})
    with pytest.raises(BadRequest, match="15 text attentions, but the model has 16"):
        parts.check(unet, 16, FILE)


@pytest.mark.parametrize(("lost", "named"), [("resampler.", "resampler is"), (".attn2.", "mixes are")])
def test_half_of_a_memory_is_refused(lost: str, named: str, tensors: dict[str, Tensor], unet: Any) -> None:
    parts = sorted_parts({name: tensor for name, tensor in tensors.items() if lost not in name})
    parts.base.clear()
    with pytest.raises(BadRequest, match=f"half of APM: its {named} missing"):
        parts.check(unet, 16, FILE)


def test_the_image_encoder_fits_the_resampler(parts: Parts, networks: Networks) -> None:
    encoder = from_open_clip(parts.image_encoder, name=FILE)
    assert networks.resampler is not None
    assert networks.resampler[0].in_features == encoder.features == 1024
