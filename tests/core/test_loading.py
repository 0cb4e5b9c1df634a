"""Model folders: every tensor accounted for, both names of the text encoder, nothing executed."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from vidgen_core.errors import BadRequest
from vidgen_core.models import loading, tiny
from vidgen_core.models.tuned import base_of
from vidgen_core.models.unet3d import load
from vidgen_core.testing import request, video


def save(folder) -> None:
    """The tiny model as a diffusers folder."""
    backbone = tiny.build()
    for name in ("vae", "text_encoder", "tokenizer"):
        getattr(backbone, name).save_pretrained(folder / name)
    backbone.denoiser.save_pretrained(folder / "unet")
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(tiny.SCHEDULER))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "TextToVideoSDPipeline"}))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    import shutil

    return shutil.copytree(saved, tmp_path / "model")


def unet_file(folder):
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


def test_a_saved_model_makes_the_same_video(saved) -> None:
    assert torch.equal(video(request(), backbone=load(str(saved))), video(request()))


def test_weights_are_hashed_by_file(saved) -> None:
    assert set(load(str(saved)).weights) == {
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
    }


def test_a_variant_that_is_fetched_later_makes_no_other_model_of_it(folder) -> None:
    before = load(str(folder))
    half = {name: tensor.half() for name, tensor in load_file(unet_file(folder)).items()}
    save_file(half, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    torch.save(half, folder / "unet" / "diffusion_pytorch_model.bin")
    assert load(str(folder)).weights == before.weights
    assert base_of(load(str(folder))) == base_of(before)
    chosen = load(str(folder), variant="fp16")
    assert [name for name in chosen.weights if name.startswith("unet/")] == [
        "unet/diffusion_pytorch_model.fp16.safetensors"
    ]


def test_the_parts_of_split_weights_are_all_of_one_variant(tmp_path) -> None:
    halves = ["model-00001-of-00002.fp16.safetensors", "model.fp16-00002-of-00002.safetensors"]
    whole = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in (*halves, *whole, "model.non_ema.safetensors"):
        (tmp_path / name).touch()
    assert [file.name for file in loading.weight_files(tmp_path, "fp16")] == halves
    assert [file.name for file in loading.weight_files(tmp_path)] == whole


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_both_name_forms_of_the_text_encoder_load(folder, prefix) -> None:
    file = folder / "text_encoder" / "model.safetensors"
    renamed = {prefix + name.removeprefix("text_model."): tensor for name, tensor in load_file(file).items()}
    save_file(renamed, file, {"format": "pt"})
    assert torch.equal(load(str(folder)).encode_text(["a"]), tiny.build().encode_text(["a"]))


def test_names_are_translated_to_the_installed_transformers() -> None:
    from transformers import CLIPTextModel

    own = tiny.build().text_encoder.state_dict()
    for prefix in ("", "text_model."):
        given = {prefix + name.removeprefix("text_model."): tensor for name, tensor in own.items()}
        assert set(loading.with_prefix_of(CLIPTextModel, given)) == set(own)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_load_in_the_wanted_precision(saved, dtype) -> None:
    backbone = load(str(saved), dtype=dtype)
    assert backbone.dtype == backbone.vae.dtype == backbone.text_encoder.dtype == dtype


def test_a_variant_falls_back_to_the_plain_files(saved) -> None:
    assert load(str(saved), variant="fp16").dtype == torch.float32


def test_missing_and_unexpected_keys_are_named(folder) -> None:
    tensors = load_file(unet_file(folder))
    tensors["stranger.weight"] = tensors.pop("conv_in.bias")
    save_file(tensors, unet_file(folder), {"format": "pt"})
    with pytest.raises(BadRequest, match=r"1 missing: conv_in.bias; 1 unexpected: stranger.weight"):
        load(str(folder))


def test_other_shapes_are_named(folder) -> None:
    tensors = load_file(unet_file(folder))
    tensors["conv_out.bias"] = torch.zeros(9)
    save_file(tensors, unet_file(folder), {"format": "pt"})
    with pytest.raises(BadRequest, match=r"conv_out.bias"):
        load(str(folder))


def test_truncated_weights_are_refused(folder) -> None:
    unet_file(folder).write_bytes(unet_file(folder).read_bytes()[:1000])
    with pytest.raises(BadRequest, match="missing, truncated or damaged; copy the folder again"):
        load(str(folder))


class Harmful:
    def __reduce__(self):
        return (print, ("this code ran",))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(folder, capsys) -> None:
    unet_file(folder).unlink()
    torch.save({"conv_in.weight": Harmful()}, folder / "unet" / "diffusion_pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(BadRequest, match="pickle that would run code"):
        load(str(folder))
    assert "this code ran" not in capsys.readouterr().out


def test_a_plain_pickle_of_tensors_is_read(folder) -> None:
    torch.save(load_file(unet_file(folder)), folder / "unet" / "diffusion_pytorch_model.bin")
    unet_file(folder).unlink()
    assert torch.equal(video(request(), backbone=load(str(folder))), video(request()))


def test_a_folder_that_is_no_model_is_refused(tmp_path) -> None:
    with pytest.raises(BadRequest, match="is not a model"):
        load(str(tmp_path))


def test_a_folder_that_is_not_there_is_refused(tmp_path) -> None:
    with pytest.raises(BadRequest, match="There is no model folder"):
        load(str(tmp_path / "nowhere"))


def test_a_model_without_its_unet_is_refused(folder) -> None:
    unet_file(folder).unlink()
    with pytest.raises(BadRequest, match="missing, truncated or damaged"):
        load(str(folder))


def test_a_hub_id_that_cannot_be_fetched_is_refused(monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BadRequest, match="Check the name and the network"):
        load("nobody/nothing")
