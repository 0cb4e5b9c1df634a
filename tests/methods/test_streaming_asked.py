"""What was asked of a long video holds in every stage of it: captions, steps, guidance, seed and overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from vidgen_streaming.chunks import Chunked
from vidgen_streaming.method import build
from vidgen_streaming.networks import Networks
from vidgen_talc.method import build as talc

from vidgen_core import hookimpl
from vidgen_core.conditioning import PerFrameText
from vidgen_core.models import tiny
from vidgen_core.models.backbone import Backbone
from vidgen_core.models.text_attention import TextAttention
from vidgen_core.run import Run, Window, frames, opened
from vidgen_core.testing import make_run, request, video

DRAWN = {"model": {"untrained": True, "image_encoder": "pkg://vidgen_moving_shapes/weights/clip"}}
SMALL = {"chunk": 4, "overlap": 2}
LEARNT: dict[str, Any] = {"hidden": 8, "embedding_widths": [8, 8, 8, 8]}


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny.build()


class Known:
    """Frames that are there already."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.frames = torch.rand(1, count, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def read(self, span: range) -> Tensor:
        return self.frames[:, span.start : span.stop]


# ------------------------------------------------------------------------------------------------ captions


@pytest.mark.parametrize(
    ("scenes", "window", "cam"), [((5, 1), "aaab", "aa"), ((3, 3), "abbb", "ab"), ((2, 4), "bbbb", "bb")]
)
def test_every_frame_of_a_chunk_reads_its_own_caption_and_cam_those_of_its_known_frames(
    scenes: Sequence[int], window: str, cam: str, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}

    def captions(run: Run, text: PerFrameText) -> str:
        """The scene, a or b, of every frame."""
        assert run.texts.embeds is not None
        known = run.texts.embeds[run.texts.rows(["a", "b"])]
        return "".join("ab"[int((known == row).all((1, 2)).nonzero())] for row in text.embeds[text.index[0]])

    class Sees:
        @hookimpl
        def on_step(self, run: Run, window: Window) -> None:
            if window.index == 1:
                seen["window"] = captions(run, window.condition["text"].cond)

    gathered = TextAttention.gathered

    def watched(self: TextAttention, texts: Sequence[PerFrameText], *where: Any) -> Any:
        if texts[0].index.shape[1] == SMALL["overlap"]:
            assert not texts[0].tokens  # nothing of the anchor
            seen["cam"] = captions(run, texts[-1])
        return gathered(self, texts, *where)

    monkeypatch.setattr(TextAttention, "gathered", watched)
    methods = {"talc": talc(scene_frames=list(scenes)), "streaming": build(**SMALL, **LEARNT), "sees": Sees()}
    run = make_run(request("a", "b", num_frames=6, num_inference_steps=1), methods, DRAWN)
    with opened(run, backbone):
        for _ in frames(run):
            pass
    assert seen == {"window": window, "cam": cam}


# --------------------------------------------------------------------------- steps, guidance, seed and overlap


Continued = Callable[..., Tensor]


@pytest.fixture(scope="module")
def continued(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Continued:
    """The second chunk of a video whose first, and the weights, are known: nothing else can make it another."""
    networks = Networks()
    networks.add_cam(backbone.denoiser, LEARNT["embedding_widths"], gain=0.1)
    file = tmp_path_factory.mktemp("weights") / "streaming.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in networks.state_dict().items()}, file)

    def make(overlap: int = 2, **changes: Any) -> Tensor:
        method = build(chunk=4, overlap=overlap)
        method.start = Known(4)  # type: ignore[assignment]
        wanted = request(num_frames=6, **changes)
        return video(wanted, {"streaming": method}, {"weights": {"streaming": str(file)}}, backbone)[:, 4:]

    return make


def refined(backbone: Backbone, changes: dict[str, Any], **options: Any) -> Tensor:
    """Known frames, refined."""
    given = {f"refine_{key}": value for key, value in {"chunk": 4, "overlap": 2, "steps": 2, **options}.items()}
    method = Chunked(chunk=4, refine=True, **given)
    method.start = Known(4)  # type: ignore[assignment]
    return video(request(num_frames=4, **changes), {"streaming": method}, DRAWN, backbone)


@pytest.fixture(scope="module")
def second_chunk(continued: Continued) -> Tensor:
    return continued()


@pytest.fixture(scope="module")
def refinement(backbone: Backbone) -> Tensor:
    return refined(backbone, {})


ASKED: list[dict[str, Any]] = [{"guidance_scale": 6.0}, {"seed": 1}]


@pytest.mark.parametrize("change", [*ASKED, {"num_inference_steps": 3}, {"overlap": 1}], ids=str)
def test_what_is_asked_reaches_the_chunks_that_continue(
    change: dict[str, Any], second_chunk: Tensor, continued: Continued
) -> None:
    assert not torch.allclose(continued(**change), second_chunk, atol=1e-3)


@pytest.mark.parametrize("change", ASKED, ids=str)
def test_what_is_asked_reaches_the_refinement(change: dict[str, Any], refinement: Tensor, backbone: Backbone) -> None:
    assert not torch.allclose(refined(backbone, change), refinement, atol=1e-3)


@pytest.mark.parametrize("option", [{"steps": 3}, {"guidance_scale": 6.0}, {"strength": 0.9}], ids=str)
def test_the_refinement_has_steps_guidance_and_strength_of_its_own(
    option: dict[str, Any], refinement: Tensor, backbone: Backbone
) -> None:
    assert not torch.allclose(refined(backbone, {}, **option), refinement, atol=1e-3)


def test_what_nobody_changes_comes_again(
    continued: Continued, second_chunk: Tensor, refinement: Tensor, backbone: Backbone
) -> None:
    assert torch.equal(continued(), second_chunk)
    assert torch.equal(refined(backbone, {"num_inference_steps": 3}), refinement)  # its steps are its own
