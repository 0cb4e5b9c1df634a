"""TF-T2V trained on images and videos together: what a kind of sample is told, what it trains, and that it goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from vidgen_tf_t2v import networks
from vidgen_tf_t2v.method import TFT2V
from vidgen_tf_t2v.trained_maps import trained_maps

from vidgen_core import attention, hookimpl
from vidgen_core import train as loop
from vidgen_core.cli import main
from vidgen_core.config import Composed, compose
from vidgen_core.data.joint import SHARES, TOLD, from_files
from vidgen_core.data.sample import Batch, extras_of
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.models import tiny
from vidgen_core.models.tuned import DENOISER, is_over_time
from vidgen_core.run import Run, Window, opened
from vidgen_core.testing import make_run, request

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from trainings import curve, interrupt_after, last, same

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from little_data import write_image, write_video
from tf_t2v_runs import CLIP, KEPT, SETTINGS, batch_of


def asked(out: Path, *more: str) -> list[str]:
    """A training of the tiny model on painted images and videos, with everything random in it."""
    own = {
        "method": "tf_t2v",
        "model": "tiny",
        "data": "moving_shapes_joint",
        "data.labelled_videos": 8,
        "data.frames": 2,
        "data.images_per_video": 2,
        "trainer.max_steps": 6,
        "trainer.workers": 0,
        "trainer.log_every": 1,
        "trainer.checkpoint_every": 2,
        "trainer.ema": 0.9,
        "trainer.learning_rate": "1e-3",
        "output.dir": out,
    }
    given = {argument.partition("=")[0] for argument in more}
    return [*(f"{key}={value}" for key, value in own.items() if key not in given), *more]


def composed(out: Path, *more: str) -> Composed:
    return compose(asked(out, *more), entry="train")


class TestWhereATrainingBegins:
    def made(self, own: dict[str, Tensor] | None = None, **options: Any) -> networks.Networks:
        method, backbone = TFT2V(**options), tiny.build()
        settings = {**SETTINGS, "model": {"image_encoder": CLIP}, "trainer": {"trainable": "all"}}
        if own is not None:
            backbone.denoiser.carried = own
        with opened(make_run(request(), {"tf_t2v": method}, settings), backbone):
            return method.networks

    def test_new_image_layers_are_drawn_or_silent(self) -> None:
        seen = torch.randn(2, 64)
        drawn, silent = (self.made(image_start=start).image for start in ("drawn", "silent"))
        assert drawn is not None and silent is not None
        assert drawn(seen).abs().min() > 0 and not silent(seen).any()
        silent(seen).sum().backward()
        assert silent[-1].weight.grad.any()  # and they learn

    def test_channels_that_no_condition_entered_by_begin_as_zeros_and_others_stay(self) -> None:
        def file(*conditions: str) -> dict[str, Tensor]:
            own = networks.fresh(tiny.build().denoiser, 64, conditions=conditions or ("depth",), gain=0.1).state_dict()
            return {n: t for n, t in own.items() if conditions or not n.startswith("encoders")}

        never, composed = file(), file("depth")
        assert self.made(never).stem.weight.any()  # nothing is added
        stem = self.made(never, trained_conditions=["depth"]).stem
        assert not stem.weight.any() and stem.weight.shape == never["stem.weight"].shape
        assert never["stem.weight"].any()  # the model's own file is as it was
        kept = self.made(composed, trained_conditions=["depth", "canny"]).stem
        assert torch.equal(kept.weight, composed["stem.weight"])


# ------------------------------------------------------------------------------------------------------ the training


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("joint") / "run"
    loop.train(composed(out))
    return out


class TestTraining:
    def test_every_kind_has_its_turn_and_its_own_curve(self, trained: Path) -> None:
        lines = curve(trained)
        shown = [name.removeprefix("loss ") for line in lines for name in line if name.startswith("loss ")]
        assert len(shown) == len(lines) == 6 and set(shown) == set(TOLD)
        for line, kind in zip(lines, shown, strict=True):
            assert ("coherence" in line) == kind.endswith("video")
            assert line["loss"] == line[f"loss {kind}"] > 0

    def test_motion_words_can_be_asked_of_captioned_videos_by_heads_that_are_thrown_away(self, tmp_path: Path) -> None:
        loop.train(composed(tmp_path / "run", "objective=moving_shapes_joint"))
        for line in curve(tmp_path / "run"):
            assert {"position", "change", "path"} & line.keys() == (
                {"position", "change", "path"} if "loss text_image_to_video" in line else set()
            )
        learnt = load_file(tmp_path / "run/methods/tf_t2v.safetensors")
        assert learnt and not [name for name in learnt if "heads" in name]

    def test_files_are_gone_through_as_often_as_epochs_say(self, tmp_path: Path) -> None:
        for place in range(4):
            write_image(tmp_path / f"images/{place}.png", grey=place).with_suffix(".txt").write_text("a grey picture")
        write_video(tmp_path / "videos/0.mp4")
        data = (f"data.images={tmp_path / 'images'}", f"data.videos={tmp_path / 'videos'}", "data.size=32")
        named = ("method=tf_t2v", "model=tiny", "data.frames=2", "data.images_per_video=2", "trainer.workers=0")
        run = compose([*named, *data, "trainer.log_every=1", f"output.dir={tmp_path / 'run'}"], entry="train")
        loop.train(run)
        assert [line["step"] for line in curve(tmp_path / "run")] == list(range(1, 9))  # 2 x 2 images in every fourth

    def test_one_of_several_sizes_that_the_model_cannot_have_is_refused_before_the_first_step(
        self, tmp_path: Path, capsys: Any
    ) -> None:
        write_video(tmp_path / "videos/0.mp4")
        data = (f"data.videos={tmp_path / 'videos'}", "data.sizes=[32,[32,36]]", "data.frames=2")
        said = failed(capsys, 2, "method=tf_t2v", "model=tiny", *data, f"output.dir={tmp_path / 'run'}")
        assert "Frames of 32 x 36 pixels do not divide by 8" in said and "data.sizes" in said
        assert not (tmp_path / "run/log.jsonl").exists()

    def test_an_image_changes_the_spatial_layers_alone(self, tmp_path: Path) -> None:
        moved = changed(tmp_path, "text_to_image")
        assert not any(is_over_time(name) for name in moved) and "denoiser.conv_in.weight" in moved
        assert not any(name.startswith("image.") for name in moved)

    def test_a_video_without_text_changes_everything(self, tmp_path: Path) -> None:
        moved = changed(tmp_path, "image_to_video")
        assert any(is_over_time(name) for name in moved) and "denoiser.conv_in.weight" in moved
        assert any(name.startswith("image.") for name in moved)

    def test_interrupted_and_resumed_it_is_bit_for_bit_the_same(self, trained: Path, tmp_path: Path) -> None:
        with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(loop, "optimise", interrupt_after(3))
            loop.train(composed(tmp_path / "run"))
        torch.rand(7)  # the state of the generator must not matter
        loop.train(composed(tmp_path / "run", "resume=true"))
        for file in ("trained.safetensors", "averaged.safetensors"):
            assert same(last(tmp_path / "run", file), last(trained, file))
        assert curve(tmp_path / "run") == curve(trained)

    @pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
    def test_noise_and_velocity_train_from_the_pure_noise_of_zero_terminal_snr(
        self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = {**tiny.SCHEDULER, "prediction_type": kind, "rescale_betas_zero_snr": kind == "v_prediction"}
        monkeypatch.setattr(tiny, "SCHEDULER", config)
        more = ("trainer.validate_every=2", "trainer.validation_timesteps=[999]", "trainer.validation_samples=2")
        loop.train(composed(tmp_path / "run", "trainer.max_steps=2", *more))
        numbers = [line["validation_t999"] for line in curve(tmp_path / "run") if "validation_t999" in line]
        assert numbers and all(number is not None and 0 < number < 100 for number in numbers)

    def test_modelscope_learns_velocity_and_zero_terminal_snr_where_asked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tiny.build().save(tmp_path / "model", torch.float32)
        whole, seen = TFT2V.losses, []

        @hookimpl
        def losses(self: TFT2V, run: Run, batch: Batch, prediction: Any) -> dict[str, Tensor]:
            seen.append(prediction)
            return whole(self, run, batch, prediction)

        monkeypatch.setattr(TFT2V, "losses", losses)
        model = ("model=modelscope", f"model.path={tmp_path / 'model'}", "model.diffusion=v_zero_snr")
        loop.train(composed(tmp_path / "run", *model, f"tf_t2v.encoder={CLIP}", "trainer.max_steps=1"))
        step = seen[0]
        assert step.scheduler.alphas_cumprod[-1] == pytest.approx(0, abs=1e-9)
        assert torch.equal(step.target, step.scheduler.get_velocity(step.latents, step.noise, step.timesteps))
        again = compose(["method=tf_t2v", f"tuned={tmp_path / 'run'}", "prompt=a"])
        assert again.config["model"]["diffusion"] == "v_zero_snr"

    def test_checkpointing_changes_no_number(self, trained: Path, tmp_path: Path) -> None:
        loop.train(composed(tmp_path / "run", "trainer.gradient_checkpointing=true"))
        whole = load_file(trained / "methods/tf_t2v.safetensors")
        again = load_file(tmp_path / "run/methods/tf_t2v.safetensors")
        assert all(torch.allclose(again[name], tensor, atol=1e-6) for name, tensor in whole.items())

    def test_the_image_model_of_moving_shapes_is_where_it_begins(self, tmp_path: Path) -> None:
        small = ("trainer.max_steps=1", "data.images_per_video=1", "trainer.batch_size=1", "data.frames=2")
        loop.train(composed(tmp_path / "run", "model=moving_shapes_start", *small))
        asked = ["method=tf_t2v", f"tuned={tmp_path / 'run'}", "prompt=a red circle", "num_inference_steps=1"]
        assert main([*asked, "num_frames=2", f"output.dir={tmp_path / 'video'}"]) == 0


# ------------------------------------------------------------------------------------------------ spatial conditions

NO_IMAGES = ("data.shares.text_to_image=0", "data.shares.image_to_image=0")
DEPTH = ("data.depth=true", "tf_t2v.trained_conditions=[depth]")


class TestConditions:
    def test_images_with_depth_teach_its_encoder_but_no_layer_over_time(self, tmp_path: Path) -> None:
        moved = changed(tmp_path, "text_to_image", *DEPTH, steps=2)
        assert {"stem.weight", "encoders.depth.conv_in.weight", "encoders.depth.conv_out.bias"} <= moved
        assert not any("over_time" in name for name in moved)

    def test_videos_without_depth_teach_the_encoder_nothing(self, tmp_path: Path) -> None:
        moved = changed(tmp_path, "image_to_video", *DEPTH, others=0.1)  # images, that the first step does not show
        assert "denoiser.conv_in.weight" in moved
        assert not any(name.startswith(("stem", "encoders")) for name in moved)

    def test_what_images_taught_holds_for_every_frame_of_a_video(self) -> None:
        made = networks.fresh(tiny.build().denoiser, image_width=64, conditions=["depth"]).encoders["depth"]
        maps, attend = torch.rand(2, 1, 3, 16, 16), attention.BACKENDS["sdpa"]
        video = made(maps, (4, 4), attend)
        frames = torch.cat([made(maps[:, :, i : i + 1], (4, 4), attend, over_time=False) for i in range(3)], dim=2)
        assert torch.equal(video, frames) and video.any()

    def test_a_condition_can_be_added_to_what_was_trained_and_steers_a_video(
        self, trained: Path, tmp_path: Path
    ) -> None:
        weights = f"weights={trained / 'methods/tf_t2v.safetensors'}"
        loop.train(composed(tmp_path / "run", *DEPTH, weights, "trainer.max_steps=2"))
        learnt = load_file(tmp_path / "run/methods/tf_t2v.safetensors")
        assert {"stem.weight", "encoders.depth.conv_in.weight"} <= learnt.keys()
        np.save(tmp_path / "depth.npy", np.random.default_rng(0).random((2, 32, 32), np.float32))
        asked = ["method=tf_t2v", f"tuned={tmp_path / 'run'}", "prompt=a", "num_inference_steps=1", "num_frames=2"]
        small = ["height=32", "width=32", f"output.dir={tmp_path / 'video'}"]
        assert main([*asked, *small, f"tf_t2v.conditions.depth={tmp_path / 'depth.npy'}"]) == 0

    def test_a_condition_that_is_added_beside_the_trained_network_keeps_it(self, trained: Path, tmp_path: Path) -> None:
        loop.train(
            composed(tmp_path / "run", *DEPTH, f"tuned={trained}", "trainer.trainable=none", "trainer.max_steps=1")
        )
        learnt, before = (load_file(run / "methods/tf_t2v.safetensors") for run in (tmp_path / "run", trained))
        network = {name: tensor for name, tensor in before.items() if name.startswith("denoiser.")}
        assert network and same({name: learnt[name] for name in network}, network)
        assert "stem.weight" in learnt

    def test_edges_and_the_first_frame_are_told_by_the_frames(self) -> None:
        batch = batch_of("image_to_video")
        maps = trained_maps(batch, ["canny", "local_image", "depth"])
        assert {name: tuple(given.shape) for name, given in maps.items()} == {
            "canny": (2, 1, 2, 64, 64),
            "local_image": (2, 3, 2, 64, 64),
        }
        assert maps["canny"].unique().tolist() == [0, 1]
        first = torch.stack([sample.frames[0] for sample in batch.samples]) / 255
        assert torch.equal(maps["local_image"], first[:, :, None].expand(-1, -1, 2, -1, -1))

    def test_a_dropped_condition_adds_nothing(self) -> None:
        batch = batch_of("text_to_image", depth=True)
        spatial = []
        for drop in (0.0, 1.0):
            method = TFT2V(trained_conditions=["depth"], drop_all=drop, drop=0.0)
            run = make_run(request(), {"tf_t2v": method}, {**SETTINGS, "trainer": {}})
            with opened(run, tiny.build()), torch.no_grad():
                run.batch = batch
                spatial.append(method.condition(run, Window(range(1), range(1)))["spatial"])
        assert spatial[0].any() and not spatial[1].any()

    @pytest.mark.parametrize(
        ("conditions", "message"),
        [
            ("[dept]", "there is no condition 'dept'. Did you mean 'depth'"),
            ("[depth,depth]", "names 'depth' twice"),
        ],
    )
    def test_a_condition_that_is_none_is_refused(
        self, conditions: str, message: str, tmp_path: Path, capsys: Any
    ) -> None:
        assert message in failed(capsys, 2, *asked(tmp_path / "run", f"tf_t2v.trained_conditions={conditions}"))

    @pytest.mark.parametrize(
        ("name", "more"),
        [("depth", []), ("motion", ["data.depth=true"]), ("depth", ["data.depth=true", *NO_IMAGES])],
    )
    def test_a_condition_that_no_data_teaches_is_refused_before_weights_are_read(
        self, name: str, more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(loop, "open_for_training", None)
        with pytest.raises(BadRequest, match=f"names '{name}', but the data brings no maps of it"):
            loop.train(composed(tmp_path / "run", f"tf_t2v.trained_conditions=[canny,{name}]", *more))

    def test_files_say_which_maps_they_bring(self, tmp_path: Path) -> None:
        write_image(tmp_path / "images/0.png")
        images = {"images": str(tmp_path / "images"), "shares": {"image_to_image": 1}}
        assert extras_of(from_files(**images, image_maps={"depth": str(tmp_path)})) == {"depth"}
        assert extras_of(from_files(**images)) == set()

    def test_maps_of_another_shape_are_refused_by_name(self) -> None:
        batch = batch_of("text_to_image", depth=True)
        for sample in batch.samples:
            sample.extra["depth"] = torch.zeros(1, 2, 8, 8)
        with pytest.raises(
            BadRequest, match=r"'depth' of 'a .*' as \(1, 2, 8, 8\). It must be \(1, 1, height, width\)"
        ):
            trained_maps(batch, ["depth"])


def changed(out: Path, kind: str, *options: str, steps: int = 1, others: float = 0.0) -> set[str]:
    """What some steps on samples of a kind change; ``others`` is the share of every other kind."""
    shares = [f"data.shares.{name}={float(name == kind) or others}" for name in SHARES] + list(options)
    more = (f"trainer.max_steps={steps}", "trainer.ema=0", "trainer.gradient_checkpointing=false", *KEPT_OPTIONS)
    loop.train(composed(out / "run", *shares, *more))
    fresh = composed(out / "none", *shares)
    run: Run = Run(fresh.request, fresh.config, loop.training_moments(fresh))
    with opened(run, tiny.build()) as _:
        before: dict[str, Tensor] = {f"{DENOISER}{n}": p for n, p in run.backbone.denoiser.named_parameters()}
        before |= dict(run.backbone.methods["tf_t2v"].named_parameters())
        after = load_file(out / "run/methods/tf_t2v.safetensors")
        return {name for name, tensor in after.items() if not torch.equal(tensor, before[name].detach())}


KEPT_OPTIONS = tuple(f"tf_t2v.{name}={value}" for name, value in KEPT.items())


# --------------------------------------------------------------------------------------------------------- bad input


def failed(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert main(["train", *arguments]) == code
    return " ".join(capsys.readouterr().err.split())


class TestBadInput:
    def test_without_data_it_is_told_what_to_give(self, tmp_path: Path, capsys: Any) -> None:
        said = failed(capsys, 2, "method=tf_t2v", "model=tiny", f"output.dir={tmp_path / 'run'}")
        assert "data.images=... are captioned images, data.videos=... videos whose captions are not read" in said

    def test_weights_of_another_model_are_refused(self, trained: Path, tmp_path: Path, capsys: Any) -> None:
        wrong = f"weights={Path(CLIP_FILE)}"
        said = failed(capsys, 2, *asked(tmp_path / "run", wrong))
        assert "clip/model.safetensors" in said and "text_model" in said

    def test_the_latent_cache_is_refused_before_weights_are_read_and_never_recommended(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def out_of_memory(*args: Any) -> Any:
            raise torch.OutOfMemoryError("out of memory")

        monkeypatch.setattr(loop, "open_for_training", out_of_memory)
        with pytest.raises(BadRequest, match="tf_t2v looks at pixels, .* Use trainer.cache=none"):
            loop.train(composed(tmp_path / "run", "trainer.cache=latents"))
        with pytest.raises(VidgenError, match="did not suffice") as raised:
            loop.train(composed(tmp_path / "run"))
        assert "trainer.cache" not in str(raised.value)

    def test_videos_whose_loss_is_no_number_end_the_training_though_images_train_on(
        self, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = TFT2V.losses

        @hookimpl
        def broken(self: TFT2V, run: Run, batch: Batch, prediction: Any) -> dict[str, Tensor]:
            found = whole(self, run, batch, prediction)
            return {name: term * float("nan") for name, term in found.items()} if batch.draw.step > 2 else found

        monkeypatch.setattr(TFT2V, "losses", broken)
        said = failed(capsys, 1, *asked(tmp_path / "run", "trainer.nonfinite_limit=1", "trainer.max_steps=20"))
        assert "is left out, its gradients are NaN or infinite: 'a " in said
        assert "in 2 steps of " in said and "_to_video in a row, the last of them step" in said
        assert "What was learnt is saved in" in said
        assert all(tensor.isfinite().all() for tensor in last(tmp_path / "run").values())
        kinds = [name for line in curve(tmp_path / "run")[3:] for name in line if name.startswith("loss ")]
        assert any(kind.endswith("_to_image") for kind in kinds[:-1])  # whose steps were good in between


CLIP_FILE = Path(__file__).parents[2] / "plugins/vidgen_moving_shapes/weights/clip/model.safetensors"
