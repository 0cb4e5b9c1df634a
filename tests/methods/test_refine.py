"""Refinement: a run inside the run, which takes frames as they come and gives them back larger, scene by scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.resources import files
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from vidgen_streaming.blending import RandomizedBlending
from vidgen_streaming.refine import EncodedFrames, Refinement
from vidgen_streaming.sdedit import Sdedit
from vidgen_talc.method import build as talc

from vidgen_core import hookimpl
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.models import tiny
from vidgen_core.models.backbone import Backbone
from vidgen_core.run import FrameBlock, Run, Window, opened
from vidgen_core.sampling import Step
from vidgen_core.testing import make_run, request, video
from vidgen_core.video import VideoReader

SMALL = {"size": (48, 32), "chunk": 4, "overlap": 2, "steps": 2}


class Refines:
    """A method that does nothing but refine."""

    def __init__(self, **options: Any) -> None:
        self.refinement = Refinement(**{**SMALL, **options})

    @hookimpl
    def attach(self, run: Run, backbone: Backbone) -> AbstractContextManager[None]:
        return self.refinement.opened(run, backbone)

    @hookimpl
    def finish_frames(self, blocks: Iterator[FrameBlock]) -> Iterator[FrameBlock]:
        return self.refinement.refined(blocks)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny.build()


def pictures(frames: int) -> Tensor:
    """(1, F, 3, 32, 32): smooth, and different from frame to frame."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(frames, 3, 4, 4, generator=generator)
    return torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear")[None]


def in_blocks(frames: Tensor, at_once: int = 1) -> Iterator[FrameBlock]:
    start = 0
    for part in frames.split(at_once, dim=1):
        yield FrameBlock(range(start, start + part.shape[1]), part)
        start += part.shape[1]


def refined(
    backbone: Backbone,
    frames: int = 7,
    blocks: Callable[[], Iterator[FrameBlock]] | None = None,
    prompts: tuple[str, ...] = ("a dog",),
    config: dict[str, Any] | None = None,
    **options: Any,
) -> Tensor:
    """The refined frames of pictures that were there already."""
    method = Refines(**options)
    methods = {"talc": talc(), "refines": method} if len(prompts) > 1 else {"refines": method}
    run = make_run(request(*prompts, num_frames=frames, guidance_scale=3.0), methods, config)
    with opened(run, backbone):
        stream = blocks() if blocks else in_blocks(pictures(frames))
        return torch.cat([block.frames for block in method.refinement.refined(stream)], dim=1)


def test_frames_leave_in_order_and_in_their_new_size(backbone) -> None:
    spans = []

    class Sees:
        @hookimpl
        def deliver(self, block: FrameBlock) -> None:
            spans.append(block.span)

    made = video(request(num_frames=7, videos=2), {"refines": Refines(), "sees": Sees()}, backbone=backbone)
    assert made.shape == (2, 7, 3, 48, 32)
    assert [frame for span in spans for frame in span] == list(range(7))
    kept = video(request(num_frames=3), {"refines": Refines(size=None)}, backbone=backbone)
    assert kept.shape == (1, 3, 3, 32, 32)


def test_little_noise_keeps_the_frames_and_all_of_it_only_the_caption(backbone) -> None:
    clip = next(files("vidgen_moving_shapes").joinpath("clips").glob("red_circle*.mp4"))
    pixels = torch.from_numpy(VideoReader(clip).frames(range(2))).permute(0, 3, 1, 2)[None] / 255
    model = "pkg://vidgen_moving_shapes/weights/text_to_image"

    def lost(strength: float) -> float:
        options = {"model": model, "size": (64, 64), "steps": 5, "strength": strength}
        made = refined(backbone, 2, lambda: in_blocks(pixels), ("a blue square on a black background",), **options)
        return float((made - pixels).abs().mean())

    assert lost(0.02) < 0.05 < 0.3 < lost(1.0)


def test_a_frame_is_refined_under_the_caption_of_its_scene(backbone) -> None:
    one = refined(backbone, 12, prompts=("a dog", "a cat"))
    other = refined(backbone, 12, prompts=("a dog", "a house in the snow"))
    assert torch.equal(one[:, :2], other[:, :2])  # two steps reach no further back than two chunks
    assert (one[:, 6:] - other[:, 6:]).abs().amax(dim=(0, 2, 3, 4)).min() > 1e-3
    assert not torch.equal(refined(backbone), refined(backbone, prompt_suffix=", sharp"))


def test_blocks_of_any_length_give_the_same(backbone) -> None:
    expected = refined(backbone)
    assert torch.equal(refined(backbone, blocks=lambda: in_blocks(pictures(7), 5)), expected)


@pytest.mark.parametrize("frames", [20, 40])
def test_only_what_the_front_needs_is_taken_from_the_stream(frames: int, backbone) -> None:
    taken, ahead = 0, []

    def counted() -> Iterator[FrameBlock]:
        nonlocal taken
        for block in in_blocks(pictures(frames)):
            taken += 1
            yield block

    method = Refines(size=None)
    run = make_run(request(num_frames=frames, guidance_scale=1.0), {"refines": method})
    with opened(run, backbone):
        for block in method.refinement.refined(counted()):
            ahead.append(taken - block.span.start)
    assert max(ahead) == 2 * 3 + 2  # chunks two frames apart, as many as steps and one, and the overlap


class Held(TorchDispatchMode):
    """The most bytes that lived at once on the device ``meta``, from which nothing can be read back."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: WeakValueDictionary[int, Tensor] = WeakValueDictionary()
        self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        self.alive.update({id(t): t for t in tree_leaves(made) if isinstance(t, Tensor) and t.is_meta})
        self.most = max(self.most, sum(tensor.nbytes for tensor in self.alive.values()))
        return made


def test_the_device_holds_one_chunk_however_many_frames_and_steps_wait(backbone) -> None:
    def held(frames: int, steps: int) -> int:
        """A refinement without networks, whose device takes tensors and gives none back."""
        sdedit = Sdedit(strength=0.6)
        blending = RandomizedBlending(4, 2, scheduler=sdedit.scheduler)
        run = make_run(request(num_frames=frames, num_inference_steps=steps), {"sdedit": sdedit, "blending": blending})
        run.backbone = SimpleNamespace(  # type: ignore[assignment]
            device=torch.device("meta"),
            scheduler_config=backbone.scheduler_config,
            latent_shape=backbone.latent_shape,
            to_latents=lambda pixels, at_once: torch.zeros(1, 4, pixels.shape[1], 4, 4),
        )
        run.placement = SimpleNamespace(vae_slice=1)  # type: ignore[assignment]
        run.prepare = lambda window: setattr(  # type: ignore[method-assign, assignment]
            window, "latents", run.moments.start_latents(run=run, window=window)
        )
        sdedit.clean = EncodedFrames(run, in_blocks(pictures(frames)))

        def denoise(window: Window, step: Step) -> Tensor:
            assert step.model_input.is_meta
            return torch.zeros(step.model_input.shape)

        (group,) = blending.plan(run)
        with Held() as device:
            for window in run.moments.sample(run=run, group=group, denoise=denoise):
                window.release()
        return device.most

    assert held(42, 8) == held(8, 8) == held(8, 2) > 0


def test_the_same_model_under_a_name_of_its_own_gives_the_same(backbone) -> None:
    assert torch.equal(refined(backbone, model="tiny"), refined(backbone))


def test_an_image_model_refines_and_a_folder_will_do(backbone) -> None:
    image = refined(backbone, frames=3, model="tiny_image")
    folder = refined(backbone, frames=3, model="pkg://vidgen_moving_shapes/weights/text_to_image")
    assert image.shape == folder.shape == (1, 3, 3, 48, 32)
    assert not torch.allclose(image, folder, atol=1e-2)


def test_the_refining_models_weights_are_recorded(backbone) -> None:
    folder = "pkg://vidgen_moving_shapes/weights/text_to_image"
    run = make_run(request(), {"refines": Refines(model=folder)})
    with opened(run, backbone):
        assert any("unet" in name for name in run.provenance["refine"]["weights"])


def test_steps_of_the_refinement_are_seen_by_the_observers_of_the_run(backbone) -> None:
    stages = []

    class Sees:
        @hookimpl
        def on_step(self, run: Run) -> None:
            stages.append(run.stage)

    from vidgen_core.moments import Moments
    from vidgen_core.run import CORE_HOOKS, frames

    moments = Moments({"refines": Refines()}, defaults=CORE_HOOKS, observers={"sees": Sees()})
    run = make_run(request(num_frames=4))
    run.moments = moments
    with opened(run, backbone):
        list(frames(run))
    assert stages == ["base", "base", "refine", "refine"]


def test_a_training_refines_nothing(backbone) -> None:
    made = refined(backbone, config={"trainer": {}})
    assert torch.equal(made, pictures(7))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (48, 30)}, r"refine_size=\[48, 30\]: 30 is not divisible by 8.*Use 24 or 32"),
        ({"size": (48,)}, r"refine_size=\[48\] is not a size"),
        ({"strength": 0.0}, "refine_strength=0.0"),
        ({"strength": 1.5}, "refine_strength=1.5"),
        ({"chunk": 8, "overlap": 8}, "refine_chunk=8, streaming.refine_overlap=8"),
        ({"model": "tinny"}, "refine_model=tinny.*tiny"),
        ({"model": "./nowhere"}, "refine_model=./nowhere is no model"),
        ({"model": "pkg://vidgen_moving_shapes/weights/clip"}, "weights/clip holds no diffusion model"),
    ],
)
def test_what_cannot_refine_is_refused_before_any_weight_is_loaded(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        Refinement(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0.01, "steps": 10}, "refine_strength=0.01, streaming.refine_steps=10: .* leaves 10"),
        ({"model": "tiny_depth"}, "reads 1 latent channel"),
    ],
)
def test_what_the_model_cannot_do_is_refused_before_the_first_step(options, message, backbone) -> None:
    run = make_run(request(), {"refines": Refines(**options)})
    with pytest.raises(BadRequest, match=message), opened(run, backbone):
        pass


@pytest.mark.parametrize("frames", [5, 9])
def test_a_stream_of_another_length_is_told(frames: int, backbone) -> None:
    with pytest.raises(VidgenError, match=f"{frames} frames came to be refined, but the video has 7"):
        refined(backbone, blocks=lambda: in_blocks(pictures(frames)))


def test_another_aspect_is_told(backbone, capsys) -> None:
    refined(backbone, frames=2)
    assert "32x32 are stretched" in capsys.readouterr().err
