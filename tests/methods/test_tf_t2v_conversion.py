"""`vidgen convert` for VGen's layout: into diffusers' network and back, with nothing lost and the same videos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor
from vgen_weights import checkpoint, network
from vidgen_tf_t2v.conversion import METHOD, PUBLISHED, UNET, converted
from vidgen_tf_t2v.networks import fresh
from vidgen_tf_t2v.published import FIRST

from vidgen_core.cli import main
from vidgen_core.config import Composed, compose
from vidgen_core.errors import BadRequest
from vidgen_core.evaluation.comparison import begun, weights_of
from vidgen_core.models import tiny
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.loading import located
from vidgen_core.run import generate

CLIP = "pkg://vidgen_moving_shapes/weights/clip"


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny.build()


@pytest.fixture(scope="module")
def folder(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of composed conditions, what it is converted to, and a folder with the other parts."""
    place = tmp_path_factory.mktemp("conversion")
    tensors = checkpoint(backbone, conditions=("depth",))
    torch.save({"state_dict": tensors, "step": 1}, place / "tft2v.pth")
    backbone.save(place / "parts", torch.float32)
    assert main(["convert", f"weights={place / 'tft2v.pth'}", f"output.dir={place / 'out'}"]) == 0
    return place


def asked(folder: Path, path: str, into: Path) -> Composed:
    request = ["method=tf_t2v", "model=tf_t2v", f"model.path={folder / path}", f"model.parts={folder / 'parts'}"]
    request += ["prompt=a", "num_inference_steps=1", "height=32", "width=32", "num_frames=2", "output.latents=true"]
    return compose([*request, f"tf_t2v.encoder={CLIP}", f"output.dir={into}"])


def latents(folder: Path, path: str, into: Path) -> Tensor:
    generate(asked(folder, path, into))
    return load_file(into / "latents.safetensors")["latents"]


def test_the_network_is_one_that_diffusers_reads_with_its_scheduler(folder, backbone) -> None:
    from diffusers import DDIMScheduler, UNet3DConditionModel

    unet = UNet3DConditionModel.from_pretrained(folder / "out", subfolder="unet")
    wanted = backbone.denoiser.state_dict()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in unet.state_dict().items())
    assert DDIMScheduler.from_pretrained(folder / "out", subfolder="scheduler").config.prediction_type == "v_prediction"


def test_either_makes_the_same_video(folder, tmp_path) -> None:
    ours, theirs = (latents(folder, path, tmp_path / path.replace("/", "_")) for path in ("out", "tft2v.pth"))
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("path", ["tft2v.pth", "out"])
def test_a_comparison_knows_the_weights_of_either_again(folder, path, tmp_path) -> None:
    into = tmp_path / "video"
    generate(asked(folder, path, into))
    again = asked(folder, path, into)
    weights = weights_of({into: again})[into]
    assert weights
    assert begun(into, again, weights, fresh=False)
    recorded = yaml.safe_load((into / "run.yaml").read_text())["weights"]
    swapped = dict(zip(recorded, reversed(recorded.values()), strict=True))
    for other in ({name: "another" for name in weights}, swapped):
        with pytest.raises(BadRequest, match="made with other weights"):
            begun(into, again, other, fresh=False)


def test_what_was_trained_becomes_the_published_file_and_goes_back(folder, backbone) -> None:
    published = torch.load(folder / "tft2v.pth", weights_only=True)["state_dict"]
    network, method = load_file(folder / "out" / UNET), load_file(folder / "out" / METHOD)
    trained = {f"denoiser.{name}": tensor for name, tensor in network.items()} | method
    made = converted(trained)
    assert made is not None
    back = made.files[PUBLISHED]
    assert back.keys() == published.keys()
    assert all(torch.equal(back[name], published[name]) for name in back)
    assert made.added == {}


def test_channels_that_no_condition_was_trained_for_are_zeros(backbone, tmp_path) -> None:
    own = fresh(backbone.denoiser, image_width=64).state_dict()
    trained = {f"denoiser.{name}": tensor for name, tensor in backbone.denoiser.state_dict().items()} | own
    save_file({name: t.contiguous() for name, t in trained.items()}, tmp_path / "tf_t2v.safetensors")
    assert main(["convert", f"weights={tmp_path / 'tf_t2v.safetensors'}", f"output.dir={tmp_path / 'out'}"]) == 0
    first = load_file(tmp_path / "out" / PUBLISHED)[FIRST]
    assert first.shape[1] == 12
    assert torch.equal(first[:, :4], backbone.denoiser.conv_in.weight)
    assert not first[:, 4:].any()


@pytest.mark.parametrize(("conditions", "rate"), [("[]", 1e-3), ("[depth]", 0)])
def test_a_training_of_modelscopes_weights_begins_with_zeros_in_the_channels_of_conditions(
    folder, backbone, tmp_path, conditions: str, rate: float
) -> None:
    torch.save(network(backbone), tmp_path / "modelscope.pth")
    model = ["model=tf_t2v", f"weights={tmp_path / 'modelscope.pth'}", f"model.parts={folder / 'parts'}"]
    data = ["data=moving_shapes_joint", "data.frames=2", "data.images_per_video=1", "data.depth=true"]
    method = ["method=tf_t2v", f"tf_t2v.encoder={CLIP}", f"tf_t2v.trained_conditions={conditions}"]
    step = ["trainer.max_steps=1", "trainer.workers=0", f"trainer.learning_rate={rate}"]
    assert main(["train", *method, *model, *data, *step, f"output.dir={tmp_path / 'run'}"]) == 0
    learnt = tmp_path / "run/methods/tf_t2v.safetensors"
    assert main(["convert", f"weights={learnt}", f"output.dir={tmp_path / 'out'}"]) == 0
    first = load_file(tmp_path / "out" / PUBLISHED)[FIRST]
    assert first.shape[1] == 12 and not first[:, 4:].any()
    assert torch.equal(first[:, :4], backbone.denoiser.conv_in.weight) == (rate == 0)


def test_what_was_trained_makes_the_same_video_in_the_published_layout_and_back_again(backbone, tmp_path) -> None:
    """The tiny model is trained to tell noise, where the published ones tell velocity."""
    start = tmp_path / "start"
    backbone.save(start, torch.float32)
    clips = located("pkg://vidgen_moving_shapes/clips/red_circle_moves_right.mp4").parent
    data = ["data=folder", f"data.path={clips}", "data.caption=a circle", "data.frames=2", "data.size=32"]
    common = ["method=tf_t2v", "model=modelscope", f"model.path={start}", f"tf_t2v.encoder={CLIP}"]
    training = [*common, *data, "trainer.max_steps=1", "trainer.workers=0", f"output.dir={tmp_path / 'trained'}"]
    assert main(["train", *training]) == 0
    file = tmp_path / "trained/methods/tf_t2v.safetensors"
    assert main(["convert", f"weights={file}", f"output.dir={tmp_path / 'published'}"]) == 0
    there = tmp_path / "published" / PUBLISHED
    assert main(["convert", f"weights={there}", f"output.dir={tmp_path / 'back'}"]) == 0

    def made(name: str, *asked: str) -> Tensor:
        sizes = ["prompt=a", "num_inference_steps=2", "height=32", "width=32", "num_frames=2", "guidance_scale=2"]
        composed = compose([*asked, *sizes, "output.latents=true", f"output.dir={tmp_path / name}"])
        composed.config["methods"]["tf_t2v"]["published_prompt"] = False
        generate(composed)
        return load_file(tmp_path / name / "latents.safetensors")["latents"]

    before = made("before", *common, f"tuned={tmp_path / 'trained'}")
    model = ["method=tf_t2v", "model=tf_t2v", f"model.parts={start}", f"tf_t2v.encoder={CLIP}"]
    for name, path in (("there", there), ("again", tmp_path / "back")):
        assert torch.allclose(made(name, *model, f"model.path={path}"), before, atol=1e-5)


def test_a_part_of_the_network_is_refused(backbone) -> None:
    own = fresh(backbone.denoiser, image_width=64).state_dict()
    trained = {f"denoiser.{name}": t for name, t in backbone.denoiser.state_dict().items() if "attentions" not in name}
    with pytest.raises(BadRequest, match="trainer.trainable=all"):
        converted(trained | own)


def test_modelscope_has_a_network_and_another_schedule(backbone, tmp_path, capsys) -> None:
    torch.save(network(backbone), tmp_path / "text2video_pytorch_model.pth")
    asked = [f"weights={tmp_path / 'text2video_pytorch_model.pth'}", f"output.dir={tmp_path / 'out'}"]
    assert main(["convert", *asked]) == 0
    assert json.loads((tmp_path / "out/scheduler/scheduler_config.json").read_text())["prediction_type"] == "epsilon"
    assert "tf_t2v.refine=<file>" in capsys.readouterr().out
    assert not (tmp_path / "out" / METHOD).exists()
