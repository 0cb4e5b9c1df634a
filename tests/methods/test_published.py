"""The published layout of Tune-A-Video: what is exported, and models and files that are read from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from one_shot import QUICK, tune, write_clip
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from vidgen_tune_a_video import export as exporting
from vidgen_tune_a_video.export import export
from vidgen_tune_a_video.published import as_2d, carried, read_inflated, to_published

import vidgen_core as vg
from vidgen_core import placement
from vidgen_core.api import train
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.models import tiny
from vidgen_core.models.loading import located, read_scheduler_config
from vidgen_core.models.tuned import scheduler_of
from vidgen_core.provenance import write_yaml
from vidgen_core.run import generate

Tensors = dict[str, torch.Tensor]


def test_an_exported_model_is_of_the_published_layout_and_edits_just_the_same(
    embedded: Path, published: dict[str, Any], tmp_path: Path
) -> None:
    names = set(load_file(next((published["model.path"] / "unet").glob("*.safetensors"))))
    assert any(name.endswith("transformer_blocks.0.attn_temp.to_q.weight") for name in names)
    assert not any(".temporal." in name for name in names)
    prompt = {"prompt": "a blue square"}
    ours = vg.generate(**QUICK, **prompt, tuned=embedded, **{"output.dir": tmp_path / "ours"})
    theirs = vg.generate(**published, **prompt, **{"output.dir": tmp_path / "theirs"})
    assert (ours.frames == theirs.frames).all()


def test_every_batch_has_what_a_published_model_has_learnt(published: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps({"one": ["a blue square"], "two": ["a blue square"]}))
    batches = {"prompts_file": tmp_path / "prompts.json", "batch_size": 1, "output.dir": tmp_path / "out"}
    generate(compose([], {**published, **batches, "output.latents": True}))
    one, two = (load_file(tmp_path / "out" / name / "latents.safetensors")["latents"] for name in ("one", "two"))
    assert torch.equal(one, two)


def test_the_scheduler_that_is_written_is_the_image_models_own(embedded: Path, published: dict[str, Any]) -> None:
    own = read_scheduler_config(str(located("pkg://vidgen_moving_shapes/weights/text_to_image")))
    assert own["timestep_spacing"] == "trailing"  # which an inversion changes
    assert read_scheduler_config(str(published["model.path"])) == own
    assert scheduler_of(embedded / "methods" / "tune_a_video.safetensors") == own


@pytest.fixture
def model(published: dict[str, Any], tmp_path: Path) -> Path:
    """A copy of the published model, to be changed."""
    return shutil.copytree(published["model.path"], tmp_path / "model", ignore=shutil.ignore_patterns("inverted"))


def as_torch_writes(tensors: Tensors, unet: Path) -> None:
    torch.save(tensors, unet / "diffusion_pytorch_model.bin")


def as_torch_wrote_before(tensors: Tensors, unet: Path) -> None:
    torch.save(tensors, unet / "diffusion_pytorch_model.bin", _use_new_zipfile_serialization=False)


def in_two_parts(tensors: Tensors, unet: Path) -> None:
    for part in range(2):
        own = {name: tensors[name] for name in sorted(tensors)[part::2]}
        save_file(own, unet / f"diffusion_pytorch_model-0000{part + 1}-of-00002.safetensors")


@pytest.mark.parametrize("write", [as_torch_writes, as_torch_wrote_before, in_two_parts])
def test_an_inflated_model_is_read_however_it_was_written(
    write: Callable[[Tensors, Path], None], model: Path, published: dict[str, Any], tmp_path: Path
) -> None:
    prompt = {"prompt": "a blue square"}
    expected = vg.generate(**published, **prompt, **{"output.dir": tmp_path / "expected"})
    (file,) = (model / "unet").glob("*.safetensors")
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    file.unlink()
    write(tensors, model / "unet")
    found = vg.generate(**{**published, "model.path": model}, **prompt, **{"output.dir": tmp_path / "found"})
    assert (found.frames == expected.frames).all()


def test_the_variant_that_is_asked_for_is_the_one_that_is_read(model: Path) -> None:
    (file,) = (model / "unet").glob("*.safetensors")
    tensors = {name: torch.zeros_like(tensor) for name, tensor in load_file(file).items()}
    save_file(tensors, file.with_suffix(".fp16.safetensors"))
    for variant, zero in (("fp16", True), (None, False)):
        unet = read_inflated(str(model), torch.float32, variant)
        assert unet is not None and all(not p.any() for p in unet.parameters()) == zero


def test_an_inflated_model_of_the_hub_is_known_by_its_configuration(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repository: str, allow_patterns: list[str]) -> str:
        asked.append((repository, *allow_patterns))
        return str(model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    unet = read_inflated("somebody/inflated", torch.float32)
    assert unet is not None and carried(unet)
    assert asked == [("somebody/inflated", "unet/config.json"), ("somebody/inflated", "unet/*")]
    config = json.loads((model / "unet" / "config.json").read_text())
    (model / "unet" / "config.json").write_text(json.dumps(as_2d(config)))
    assert read_inflated("somebody/image-model", torch.float32) is None
    assert asked[2:] == [("somebody/image-model", "unet/config.json")]


def partial(embedded: Path) -> Tensors:
    """What the baseline of a competition saves: the tensors that train, under the published names."""
    return to_published(load_file(embedded / "methods" / "tune_a_video.safetensors"))


def test_a_file_of_what_was_tuned_alone_edits_just_the_same(
    embedded: Path, published: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(
        {name.removeprefix("denoiser."): tensor for name, tensor in partial(embedded).items()}, tmp_path / "tuned.pth"
    )
    image = {key: value for key, value in published.items() if key != "model.path"} | {"prompt": "a blue square"}
    ours = vg.generate(**QUICK, prompt="a blue square", tuned=embedded, **{"output.dir": tmp_path / "ours"})
    theirs = vg.generate(**image, tuned=tmp_path / "tuned.pth", **{"output.dir": tmp_path / "theirs"})
    assert (ours.frames == theirs.frames).all()


@pytest.mark.parametrize("lost", ["attn_temp.to_out.0.bias", "norm_temp.weight"])
def test_an_inflated_model_that_lacks_a_temporal_tensor_is_refused(
    lost: str, model: Path, published: dict[str, Any], tmp_path: Path
) -> None:
    (file,) = (model / "unet").glob("*.safetensors")
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    save_file({name: tensor for name, tensor in tensors.items() if not name.endswith(lost)}, file)
    with pytest.raises(BadRequest, match=rf"model' is incomplete: \d+ of the \d+ tensors .* first '.*{lost}'"):
        vg.generate(**{**published, "model.path": model}, prompt="x", **{"output.dir": tmp_path / "none"})


def test_a_file_that_lacks_a_tuned_tensor_is_refused(embedded: Path, published: dict[str, Any], tmp_path: Path) -> None:
    tensors = {name: tensor for name, tensor in partial(embedded).items() if ".attn2." not in name}
    image = {key: value for key, value in published.items() if key != "model.path"}
    for held in (tensors, {}):
        torch.save(held, tmp_path / "half.pth")
        with pytest.raises(BadRequest, match=r"half.pth' is incomplete: .* first 'down_blocks"):
            vg.generate(**image, prompt="x", tuned=tmp_path / "half.pth", **{"output.dir": tmp_path / "none"})


def test_a_disk_that_is_full_leaves_no_half_of_an_export(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched, pytest.raises(VidgenError, match="the disk is full. Nothing was written"):
        patched.setattr(exporting, "save_file", full)
        export(str(embedded), tmp_path / "whole")
    assert list(tmp_path.iterdir()) == []
    assert (export(str(embedded), tmp_path / "whole") / "model_index.json").is_file()


def test_a_run_is_exported_in_full_precision_without_its_clip_or_a_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, prompts = write_clip(tmp_path / "square.mp4"), tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"one": ["a blue square"]}))
    looks = {"prompt": None, "prompts_file": prompts, "tune_a_video.caption": "a square"}
    tune(tmp_path / "run", clip, **looks)
    clip.unlink()
    prompts.unlink()
    monkeypatch.setattr("vidgen_core.placement.device_and_dtype", halved(placement.device_and_dtype))
    whole = export(str(tmp_path / "run"), tmp_path / "whole")
    written = load_file(next((whole / "unet").glob("*.safetensors")))
    own = tiny.build_image().denoiser.state_dict()
    assert torch.equal(written["conv_in.weight"], own["conv_in.weight"])


def halved(choose: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """As on a device that computes in half precision unless it is told otherwise."""

    def chosen(config: Any) -> Any:
        device, dtype = choose(config)
        return device, torch.bfloat16 if config.get("dtype", "auto") == "auto" else dtype

    return chosen


def test_a_run_tuned_with_scenes_is_exported(tmp_path: Path, clip: Path) -> None:
    tune(tmp_path / "run", clip, method=["tune_a_video", "talc"], prompt=["a square", "it moves"])
    assert (export(str(tmp_path / "run"), tmp_path / "whole") / "model_index.json").is_file()


def test_a_run_of_another_inflation_has_no_place_in_the_published_layout(tmp_path: Path) -> None:
    config = compose([], {"method": "tune_a_video", "tune_a_video.inflation": "vdm", "model": "tiny_image"}).config
    write_yaml(tmp_path / "run.yaml", {"config": config})
    with pytest.raises(BadRequest, match="tuned with inflation=vdm, for whose layers the published layout has no"):
        export(str(tmp_path), tmp_path / "whole")


@pytest.mark.parametrize(
    ("method", "channels", "message"),
    [
        ("depth", 4, "this one reads none. Choose one, or use method=tune_a_video."),
        ("depth", 9, "this one reads 5. Choose one."),
        ("tune_a_video", 5, "reads a latent channel .* Use method=depth, or a model that reads none."),
        ("tune_a_video", 9, "reads 5 latent channels .* does not supply. Use a model that reads none."),
    ],
)
def test_a_model_of_another_kind_is_told_before_its_weights_are_read(
    method: str, channels: int, message: str, clip: Path, tmp_path: Path
) -> None:
    """There are no weights at all here."""
    config = tmp_path / "model" / "unet" / "config.json"
    config.parent.mkdir(parents=True)
    config.write_text(json.dumps({"in_channels": channels, "out_channels": 4}))
    asked = {"method": method, "model": "sd2_depth", "model.path": tmp_path / "model", "video": clip, "prompt": "x"}
    asked |= {"num_frames": 4, "height": 64, "width": 64, "output.dir": tmp_path / "run"}
    for make in (vg.generate, train):
        with pytest.raises(BadRequest, match=message):
            make(**asked)
    assert not (tmp_path / "run").exists()
