"""Every bundled method keeps the contract, and the check finds each way to break it."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from vidgen_core import hookimpl
from vidgen_core.attention import SelfAttention, install
from vidgen_core.conditioning import Branches, Condition, PerFrameText
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.plugin import discover
from vidgen_core.testing import check_method

QUICK = {"num_inference_steps": 1, "guidance_scale": 1.0}
ONE_CLIP: dict[str, Any] = {
    **{"num_frames": 3, "guidance_scale": 1.0},
    "training": {"trainer.gradient_checkpointing": False},
}
NEEDS: dict[str, dict[str, Any]] = {
    "tune_a_video": ONE_CLIP,
    "depth": ONE_CLIP,
    "streaming": {
        "num_frames": 3,
        "training": {"trainer.accumulation": 1, "trainer.gradient_checkpointing": False},
    },
}
"""Keys with which a bundled method is checked, where it is faster by them than by those of its card."""

METHODS = [name for name, entry in discover().items() if entry.plugin is not None and entry.plugin.is_method]


@pytest.mark.parametrize("name", METHODS)
def test_a_bundled_method_keeps_the_contract(name: str) -> None:
    check_method(name, **NEEDS.get(name, {}))


# ------------------------------------------------------------------------------------- what the check finds


class Pull:
    """Keeps the contract; the others break it."""

    def __init__(self, strength: float = 0.5) -> None:
        self.strength = strength

    @hookimpl
    def after_step(self, latents):
        return latents.lerp(latents.mean(2, keepdim=True), self.strength)


class Unmarked(Pull):
    def plan(self, run):
        return []


class Idle:
    @hookimpl
    def on_stp(self): ...


class GlobalNoise:
    @hookimpl
    def after_step(self, latents):
        return latents + torch.randn_like(latents)


class Seeds:
    @hookimpl
    def recall(self):
        torch.manual_seed(0)


class CountsRuns:
    runs = 0

    @hookimpl
    def after_step(self, latents):
        CountsRuns.runs += 1
        return latents * (1 + CountsRuns.runs)


class Remembers:
    kept = None

    @hookimpl
    def after_step(self, step, latents):
        self.kept = latents.mean() if self.kept is None else self.kept
        return latents + self.kept


class Stays:
    @hookimpl
    @contextmanager
    def attach(self, backbone):
        backbone.denoiser.conv_out.register_forward_hook(lambda module, given, out: 2 * out)
        yield


class StaysAfterErrors:
    @hookimpl
    @contextmanager
    def attach(self, backbone):
        handle = backbone.denoiser.conv_out.register_forward_hook(lambda module, given, out: 2 * out)
        yield
        handle.remove()


class Reads:
    @hookimpl
    @contextmanager
    def attach(self, backbone):
        backbone.reads.add("mine")
        yield


class Scales:
    @hookimpl
    @contextmanager
    def attach(self, backbone):
        with torch.no_grad():
            backbone.vae.decoder.conv_out.bias += 0.1
        yield


class MixesVideos:
    @hookimpl
    def after_step(self, latents):
        return latents + latents.mean(0, keepdim=True)


class NeedsTwoFrames:
    @hookimpl
    def after_step(self, latents):
        return latents + latents[:, :, 1, None]


class NeedsSinglePrecision:
    def mixed(self, module, given, out):
        return torch.einsum("nchw,cd->ndhw", out, torch.eye(4))

    @hookimpl
    @contextmanager
    def attach(self, backbone):
        handle = backbone.denoiser.conv_out.register_forward_hook(self.mixed)
        try:
            yield
        finally:
            handle.remove()


class LearnsNothing:
    @hookimpl(claims="vae")
    def trainable(self, backbone):
        return {"vae.decoder.conv_out.bias": backbone.vae.decoder.conv_out.bias}


class Swallows:
    @hookimpl
    @contextmanager
    def attach(self):
        with suppress(Exception):
            yield


class Replaces:
    """Says neither that it does not call the processor in place, nor which attention it claims."""

    @hookimpl
    def attach(self, backbone):
        def build(name, module, current):
            return SelfAttention(backbone.attention, backbone.attend)

        return install(backbone.denoiser, lambda name, module: "temp_" in name, build, owner="replaces")


class Samples:
    """Tells no other method of its steps."""

    @hookimpl
    def sample(self, run, group, denoise):
        for window in group.windows:
            yield run.prepare(window)


class Named:
    @hookimpl
    @contextmanager
    def attach(self, backbone):
        backbone.methods["adapter"] = torch.nn.Identity()
        yield
        del backbone.methods["adapter"]


class Beside:
    @hookimpl
    def refine_condition(self, condition):
        def told(text):
            return text.beside("image", torch.zeros(1, 1, text.embeds.shape[-1]), torch.zeros_like(text.index))

        text = condition["text"]
        return Condition({**condition, "text": Branches(told(text.cond), told(text.uncond))})


class Drops:
    """Makes the text anew and forgets what stood beside it."""

    @hookimpl
    def refine_condition(self, condition):
        text = condition["text"]
        anew = [PerFrameText(branch.embeds, branch.index) for branch in (text.cond, text.uncond)]
        return Condition({**condition, "text": Branches(*anew)})


class Renames:
    @hookimpl
    def trainable(self, backbone):
        return {"renames.bias": backbone.denoiser.conv_out.bias}


BROKEN = {
    Drops: (AssertionError, "drops the image tokens that another method has put beside the text"),
    Unmarked: (BadRequest, "'unmarked' has a function 'plan' that is never called. Mark it with"),
    Replaces: (
        AssertionError,
        "never calls the one in place. Say so, install.*replaces=True",
    ),
    Samples: (AssertionError, "owns `sample` and calls no other's after_step and on_step"),
    Named: (VidgenError, "has 'adapter', the name of no method of this run.*Methods use their own: named"),
    Beside: (
        VidgenError,
        "beside the text as 'image', the name of no method.*their own: beside",
    ),
    Renames: (
        VidgenError,
        "'renames' trains 'renames.bias', which is the model's 'denoiser.conv_out.bias'",
    ),
    Idle: (BadRequest, "implements a hook 'on_stp' that does not exist. Did you mean 'on_step'"),
    GlobalNoise: (AssertionError, "draws from the global random numbers"),
    Seeds: (AssertionError, "global random numbers or seeds them"),
    CountsRuns: (AssertionError, "another video when it runs again"),
    Remembers: (AssertionError, "another video when it made another one before. What it remembers of a video begins"),
    Stays: (AssertionError, "leaves the backbone changed: hook .* on denoiser.conv_out is new. What `attach` installs"),
    StaysAfterErrors: (AssertionError, "leaves the backbone changed after an exception: hook"),
    Reads: (AssertionError, "leaves the backbone changed: backbone.reads is another: .*mine"),
    Scales: (AssertionError, "leaves the backbone changed: vae.decoder.conv_out.bias has other values"),
    Swallows: (AssertionError, "made no frames, .* or it swallowed an exception"),
    MixesVideos: (AssertionError, "another video in a batch of two than alone, by up to"),
    NeedsTwoFrames: (VidgenError, "'needs_two_frames' failed in its hook 'after_step'"),
    NeedsSinglePrecision: (RuntimeError, "scalar type"),
    LearnsNothing: (VidgenError, "No loss depends on what trains: denoising on 'vae.decoder.conv_out.bias'"),
}


@pytest.mark.parametrize("method", BROKEN, ids=lambda method: method.__name__)
def test_what_breaks_the_contract_is_named(method: Any) -> None:
    error, pattern = BROKEN[method]
    with pytest.raises(error, match=pattern):
        check_method(method, **QUICK)


def test_objects_and_files_are_checked_too(tmp_path: Path) -> None:
    check_method(lambda: Pull(0.25), **QUICK)
    file = tmp_path / "wrong.py"
    file.write_text(
        "from vidgen_core import hookimpl\n\nclass Wrong:\n    @hookimpl\n    def after_step(self, latent): ...\n"
    )
    with pytest.raises(BadRequest, match="asks for an argument 'latent' in its hook 'after_step'.*'latents'"):
        check_method(file)


CARD = "{}from vidgen_core import Plugin\nplugin = Plugin('', 'a test', __name__{})\n"
KEPT = ", composes_with='All.', hook_api=1"
METHOD = """
from vidgen_core import hookimpl
from vidgen_core.conditioning import text_per_frame

class Third:
    @hookimpl
    def condition(self, run, window):
        return {"text": text_per_frame(run, window)}
"""


@pytest.mark.parametrize(
    ("name", "card", "pattern"),
    [
        ("silent", CARD.format("", ""), "does not say what it goes with"),
        ("timeless", CARD.format("", ", composes_with='All.'"), "does not state the hook API .* hook_api=1"),
        ("heavy", CARD.format("import numpy\n", KEPT), "import third_party_heavy also .* numpy"),
    ],
)
def test_the_card_of_a_package_is_checked(name: str, card: str, pattern: str, install_plugin) -> None:
    yaml = f"# @package methods.{name}\n_target_: third_party_{name}.method.Third\n"
    install_plugin(name, card, {"method.py": METHOD, f"conf/method/{name}.yaml": yaml})
    with pytest.raises(AssertionError, match=pattern):
        check_method(name)
