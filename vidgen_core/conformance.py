"""The contract of a method as one test, the same for the bundled ones and yours: ``vidgen_core.testing.check_method``.

Everything runs on the tiny models, in seconds on a CPU. B videos, F frames, H W pixels.
"""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from vidgen_core import hookimpl
from vidgen_core.attention import SelfAttention, TextCrossAttention, uncalled
from vidgen_core.conditioning import Branches, Condition, PerFrameText
from vidgen_core.config import Composed, compose
from vidgen_core.errors import BadRequest
from vidgen_core.hookspecs import HOOK_API_VERSION, kinds, marked
from vidgen_core.instantiate import built_methods
from vidgen_core.models.backbone import Backbone
from vidgen_core.moments import Moments
from vidgen_core.plugin import discover, method_plugin
from vidgen_core.request import single_scene
from vidgen_core.run import CORE_HOOKS, Run, frames, opened
from vidgen_core.snapshot import Snapshot
from vidgen_core.trial import TRAINING_HOOKS, trial_keys
from vidgen_core.unpackaged import of_file, of_object

HEAVY = ("torch", "numpy", "diffusers", "transformers", "accelerate", "hydra", "omegaconf", "cv2", "av", "decord")
"""What the module of a card must not import, because ``vidgen list`` imports every card."""

Method = str | Path | Callable[[], object]
"""The name of an installed method, the path of a Python file with one, or what makes an object, such as a class."""


def check_method(method: Method, *, training: Mapping[str, Any] | None = None, **keys: Any) -> None:
    """Raise unless a method keeps the contract; AssertionError says in one paragraph what is broken, and the mend.

    Checked: its card is light to import and says what it goes with; its hooks have the right names and arguments, and
    claim what they supply or replace; those of others are called beside it;
    constructed twice and run twice, between other runs, it makes the same video, and leaves the global random numbers
    alone; the backbone is as it was found, also after an exception; two videos of an odd size come out together as each
    alone; one frame and bfloat16 work; and it trains a step, if it has hooks for that.

    Args:
        training: Keys of `vidgen train` for that step; the data are clips of ``data.frames=4`` frames of noise.
        **keys: Keys of `vidgen generate` that the method needs, such as ``model`` or ``video``, and its own options:
            ``**{"mine.strength": 0.5}``. The others are those of its card's ``trial`` and of ``trial.py``.

    Raises:
        BadRequest: for what is refused before a run, such as a hook with a wrong argument.
    """
    subject = Subject(method, keys)
    check_card(subject)
    check_hooks(subject)
    video = check_generators(subject)
    check_others_called(subject)
    check_left_as_found(subject)
    check_same_video(subject, video)
    check_batch(subject)
    subject.video(dtype="bf16")
    if training is not None or any(map(subject.implements, TRAINING_HOOKS)):
        check_training(subject, training or {})


class Subject:
    """The method that is checked, and the runs that it is checked in.

    Attributes:
        keys: Those of `vidgen generate`, beside the method's.
        composed: The request, as a user would write it.
        methods: One object of the method, by its name.
        backbone: The one of all runs but those of another dtype.
        found: What it was made of before the first run.
    """

    def __init__(self, method: Method, keys: Mapping[str, Any]) -> None:
        self.method = method
        if isinstance(method, str):
            self.name, self.card = method, method_plugin(method, discover())
        else:
            entry = of_file(str(method)) if isinstance(method, Path) else of_object(method())
            assert entry.plugin is not None
            self.name, self.card = entry.name, entry.plugin
        self.keys = {**trial_keys({self.name: self.card}), **keys}
        self.require(self.keys["model"], "runs on no tiny model. Say which small one: check_method(..., model=...)")
        self.composed = self.compose()
        self.methods = self.made()
        self.hooks = self._moments(self.methods).table()
        self.backbone: Backbone | None = None
        self.found: Snapshot

    def require(self, kept: Any, complaint: str) -> None:
        """Raise AssertionError with the complaint unless the contract is kept."""
        if not kept:
            raise AssertionError(f"The method '{self.name}' {complaint}.")

    def compose(self, entry: str = "config", **keys: Any) -> Composed:
        """The request with further keys."""
        method = [self.name] if isinstance(self.method, str | Path) else [self.method()]
        files = {"plugin": self.method} if isinstance(self.method, Path) else {}
        return compose([], {**self.keys, **files, "method": method, **keys}, entry)

    def made(self) -> dict[str, Any]:
        """The method made anew, by its name."""
        return built_methods(self.composed) if isinstance(self.method, str | Path) else {self.name: self.method()}

    def implements(self, hook: str) -> bool:
        """Whether the method has a hook."""
        return any(name == hook and self.name in owners for name, _, owners in self.hooks)

    def _moments(self, methods: Mapping[str, object], observers: Mapping[str, object] | None = None) -> Moments:
        return Moments(methods, self.composed.config["owner"], CORE_HOOKS, observers)

    def video(
        self,
        methods: Mapping[str, object] | None = None,
        observers: Mapping[str, object] | None = None,
        dtype: str | None = None,
        **changes: Any,
    ) -> Tensor:
        """The frames (B, F, 3, H, W) of a whole run.

        Args:
            methods: The objects that run; None makes them anew.
            dtype: Another than the request's, with a backbone of its own.
            **changes: Of the request.
        """
        config = self.composed.config
        config = {**config, "placement": {**config["placement"], "dtype": dtype or config["placement"]["dtype"]}}
        moments = self._moments(methods or self.made(), observers)
        request = single_scene(moments.prepare_request(request=self.composed.request.replace(**changes)))
        run = Run(request, config, moments)
        if self.backbone is None:
            self.backbone = moments.build_backbone(run=run)
            self.found = Snapshot(self.backbone)
        blocks: list[Tensor] = []
        with opened(run, self.backbone if dtype is None else None):
            blocks = [block.frames for block in frames(run)]
        asked = f"{len(request.videos)} of {request.num_frames} frames, {request.height}x{request.width}"
        self.require(blocks, f"made no frames, but {asked} were asked for; or it swallowed an exception of another")
        made = torch.cat(blocks, dim=1)
        self.require(len(made) == len(request.videos), f"made {len(made)} videos, but {asked} were asked for")
        self.require(made.isfinite().all(), f"made frames that are no numbers, where {asked} were asked for")
        return made


# --------------------------------------------------------------------------------------------- card and hooks


def check_card(subject: Subject) -> None:
    """The card of a package is light to import, says what the method goes with, and for which hooks it is written."""
    if not isinstance(subject.method, str):
        return  # a file and an object may do without a card
    package = subject.card.package
    subject.require(
        subject.card.composes_with, "does not say what it goes with. Give its card composes_with='one sentence'"
    )
    ours = discover()[subject.name].distribution == "vidgen"
    subject.require(
        ours or subject.card.hook_api is not None,
        f"does not state the hook API that it was written for. Give its card hook_api={HOOK_API_VERSION}",
    )
    program = f"import sys; sys.path[:] = {sys.path!r}; import {package}; print(*{set(HEAVY)!r} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    subject.require(done.returncode == 0, f"cannot be imported: import {package}: {done.stderr.strip()[-200:]}")
    subject.require(
        not done.stdout.strip(),
        f"is not light: import {package} also imports {done.stdout.strip()}. The card's module holds the card only; "
        "the method has a module of its own",
    )


def check_hooks(subject: Subject) -> None:
    """There is a hook; unmarked ones, wrong names and arguments were refused already."""
    subject.require(any(map(subject.implements, kinds())), "implements no hook")


def check_others_called(subject: Subject) -> None:
    """Processors call the one that they wrap or say that they replace it, and an owner of ``sample`` calls the rest."""
    called: set[int] = set()

    def noting(kind: type) -> Callable[..., Any]:
        call = kind.__call__

        def noted(self: Any, *arguments: Any, **named: Any) -> Any:
            called.add(id(self))
            return call(self, *arguments, **named)

        return noted

    others: _Others = _Corrects(called)
    with ExitStack() as stack:
        for kind in (SelfAttention, TextCrossAttention):
            stack.enter_context(patch.object(kind, "__call__", noting(kind)))
        try:
            subject.video(others.around(subject.made()))
        except BadRequest as error:
            if "'others'" not in str(error):
                raise
            others = _Others(called)  # beside one that corrects its windows it is refused, by name
            subject.video(others.around(subject.made()))
    module, owner = others.uncalled
    subject.require(
        not module,
        f"puts a processor of '{owner}' around the attention of '{module}' that never calls the one in place. Say so, "
        "install(..., replaces=True), and claim that kind of attention",
    )
    subject.require(
        not others.dropped,
        "drops the image tokens that another method has put beside the text. Its `refine_condition` keeps what it is "
        "given: dataclasses.replace(text, ...) or text.beside(...)",
    )
    if subject.implements("sample"):
        silent = [h for h in ("recall", "after_step", "on_step") if h in marked(others) and h not in others.seen]
        subject.require(
            not silent,
            f"owns `sample` and calls no other's {' and '.join(silent)}. A sampler prepares windows by run.prepare, "
            "and calls run.moments.after_step and on_step",
        )


class _Others:
    """A second method of a run: which of its hooks are called, and which of the core's processors are not."""

    def __init__(self, called: set[int]) -> None:
        self.called, self.seen, self.uncalled, self.dropped = called, set[str](), ("", ""), False

    @hookimpl
    def refine_condition(self, condition: Condition) -> Condition:
        def beside(text: PerFrameText) -> PerFrameText:
            return text.beside("others", text.embeds[:1, :1], torch.zeros_like(text.index))

        text = condition["text"]
        return Condition({**condition, "text": Branches(beside(text.cond), beside(text.uncond))})

    @hookimpl
    def recall(self) -> dict[str, Any]:
        self.seen.add("recall")
        return {}

    @hookimpl
    def on_step(self) -> None:
        self.seen.add("on_step")

    @hookimpl
    def deliver(self, run: Run) -> None:
        if run.backbone.denoiser is not None:
            self.uncalled = uncalled(run.backbone.denoiser, self.called)

    def around(self, methods: Mapping[str, object]) -> dict[str, object]:
        """The methods, with this one before them and one after them that sees what they have left."""
        return {"others": self, **methods, "others_tokens": _Sees(self)}


class _Sees:
    """The last method of a run, which sees whether the tokens of the first are still there."""

    def __init__(self, others: _Others) -> None:
        self.others = others

    @hookimpl
    def refine_condition(self, condition: Condition) -> None:
        texts = [condition.branch(branch)["text"] for branch in ("cond", "uncond")]
        self.others.dropped |= any("others" not in text.tokens for text in texts)


class _Corrects(_Others):
    @hookimpl
    def after_step(self) -> None:
        self.seen.add("after_step")


# ---------------------------------------------------------------------------------------------------- state


def check_generators(subject: Subject) -> Tensor:
    """A run leaves the global random numbers alone; returns its video."""
    torch.manual_seed(1)
    before = _global_state()
    video = subject.video(subject.methods)
    subject.require(
        _global_state() == before,
        "draws from the global random numbers or seeds them, or changes what else is global to torch. Noise is "
        "run.noise(window); other draws take a torch.Generator of their own",
    )
    return video


def _global_state() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state()
    numbers = (torch.get_rng_state().tolist(), random.getstate(), kind, np.asarray(keys).tolist(), rest)
    return (*numbers, torch.get_default_dtype(), torch.is_grad_enabled())


def check_same_video(subject: Subject, video: Tensor) -> None:
    """The same request is the same video, whatever ran before; an image, here, which is a video too."""
    first = subject.composed.request.videos[0]
    image = dataclasses.replace(first, prompts=first.prompts[:1], negative_prompts=first.negative_prompts[:1])
    another = subject.made()
    subject.video(another, num_frames=1, videos=(image,))
    torch.manual_seed(2)
    again = {"it runs again": subject.methods, "it made another one before": another}
    for when, methods in again.items():
        subject.require(
            torch.equal(video, subject.video(methods)),
            f"makes another video when {when}. What it remembers of a video begins anew in `attach`, or a `plan` that "
            "it claims; nothing is kept in classes, modules or the backbone",
        )


def check_left_as_found(subject: Subject) -> None:
    """After a run, and after one that fails, every part of the backbone is the very one it was."""
    mend = "What `attach` installs, it undoes when its context ends: use `finally`, or vidgen_core.attention.install"
    changed = subject.found.difference()
    subject.require(not changed, f"leaves the backbone changed: {changed}. {mend}")
    with suppress(_Fails.Error):
        subject.video(subject.methods, {"fails": _Fails()})
    changed = subject.found.difference()
    subject.require(not changed, f"leaves the backbone changed after an exception: {changed}. {mend}")


class _Fails:
    """Ends a run at its first step, or with its first frames where a sampler tells of no steps."""

    class Error(Exception):
        """Nothing went wrong."""

    @hookimpl
    def on_step(self) -> None:
        raise self.Error

    @hookimpl
    def deliver(self) -> None:
        raise self.Error


# ------------------------------------------------------------------------------------------ sizes, training


def check_batch(subject: Subject) -> None:
    """Two videos of an odd size are made together as each by itself."""
    first = subject.composed.request.videos[0]
    second = dataclasses.replace(first, prompts=tuple(f"{prompt} again" for prompt in first.prompts), index=1)
    odd: dict[str, Any] = {"num_frames": subject.composed.request.num_frames + 1, "height": 40, "width": 24}
    together, alone = subject.video(videos=(first, second), **odd), subject.video(**odd)
    subject.require(
        torch.allclose(together[:1], alone, atol=1e-3),
        f"makes another video in a batch of two than alone, by up to {(together[:1] - alone).abs().max():.3f} of 1. "
        "The first axis of every tensor is videos: mix nothing along it",
    )


def check_training(subject: Subject, keys: Mapping[str, Any]) -> None:
    """A step of training has a loss and gradients, and what was learnt makes a video."""
    from vidgen_core.train import train

    caption = subject.composed.request.videos[0].prompts[0]
    with tempfile.TemporaryDirectory() as work:
        out = Path(work) / "out"
        data = {"data": "folder", "data.path": _clips(Path(work) / "clips"), "data.caption": caption}
        data |= {"data.frames": 4, "data.size": 32, "trainer.workers": 0, "trainer.max_steps": 1}
        train(subject.compose("train", **{**data, "output.dir": out, **keys}))
        log = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
        subject.require(
            0 < log["grad_norm"] < float("inf"),
            f"learns nothing in a step of training: its loss is {log['loss']}, its gradients are {log['grad_norm']}",
        )
        if "tuned" in subject.card.reads:
            Subject(subject.method, {**subject.keys, "tuned": out}).video()


def _clips(folder: Path) -> Path:
    """A folder of two clips of 16 frames, 32 x 32 pixels of noise."""
    from vidgen_core.video_writer import VideoWriter

    folder.mkdir()
    for number in range(2):
        writer = VideoWriter(folder / f"{number}.mp4", fps=8)
        writer.write(np.random.default_rng(number).integers(0, 255, (16, 32, 32, 3), dtype=np.uint8))
        writer.close()
    return folder
