"""One run: its windows, what it hands to the hooks, and the loop itself (``hookspecs.py`` is its story in words)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vidgen_core import conditioning, sampling
from vidgen_core import placement as placements
from vidgen_core.errors import BadRequest
from vidgen_core.instantiate import instantiate
from vidgen_core.moments import Moments
from vidgen_core.noise import keyed_noise
from vidgen_core.request import Request, single_scene

if TYPE_CHECKING:
    from vidgen_core.config import Composed
    from vidgen_core.models.backbone import Backbone, ModelInput
    from vidgen_core.placement import Placement


@dataclass
class Window:
    """A span of absolute frames denoised together, of which ``keep`` is delivered.

    ``index`` counts windows over the whole video, ``group`` counts groups: both key noise and the journal.
    """

    span: range
    keep: range
    index: int = 0
    group: int = 0
    memory: dict[str, Any] = field(default_factory=dict)
    condition: conditioning.Condition = field(default_factory=conditioning.Condition)
    latents: Tensor | None = None  # B C F h w, F = len(span)
    inputs: dict[tuple[str, ...], ModelInput] = field(default_factory=dict)  # per set of branches, made once

    def release(self) -> None:
        """Drop the tensors of a window that has left: memory must not grow with the number of windows."""
        self.latents = None
        self.memory, self.inputs, self.condition = {}, {}, conditioning.Condition()

    @property
    def kept(self) -> slice:
        """Where ``keep`` lies inside ``span``."""
        return slice(self.keep.start - self.span.start, self.keep.stop - self.span.start)


@dataclass(frozen=True)
class Group:
    """Windows that are sampled jointly and share their noise where they overlap."""

    windows: tuple[Window, ...]
    index: int = 0


@dataclass(frozen=True)
class FrameBlock:
    """Finished frames on their way out: ``frames`` (B, F, 3, H, W) float in [0, 1], F = len(span), on the CPU.

    ``window`` is the index of the window they came from; ``last`` marks the window's last block.
    """

    span: range
    frames: Tensor
    window: int = 0
    last: bool = False


class Run:
    """What the hooks are given: the request, the parts that were loaded, and services that every method needs.

    Attributes:
        request: What is made; scenes are laid on absolute frames.
        config: The resolved configuration, plain data.
        moments: The hooks of this run.
        placement: Where tensors live; known once the backbone is loaded.
        backbone: The model; known from ``attach`` on.
        texts: The distinct texts of the run, encoded once.
        provenance: What ``run.yaml`` records beside the configuration.
        stage: Keys the noise of nested runs: ``base``, ``refine``.
    """

    def __init__(self, request: Request, config: Mapping[str, Any], moments: Moments, stage: str = "base") -> None:
        self.request = request
        self.config = config
        self.moments = moments
        self.stage = stage
        self.placement: Placement
        self.backbone: Backbone
        self.texts: conditioning.TextTable
        self.provenance: dict[str, Any] = {}
        self.notes: list[str] = []  # warnings for the user, shown once

    def place(self, backbone: Backbone, placement: Placement) -> None:
        """Take the loaded backbone and its placement into the run."""
        self.backbone, self.placement = backbone, placement
        self.texts = conditioning.TextTable(backbone.encode_text)

    def warn(self, message: str) -> None:
        """Tell the user something once, with numbers; it is printed and kept in ``run.yaml``."""
        if message not in self.notes:
            self.notes.append(message)
            print(f"warning: {message}", file=sys.stderr)

    def noise(self, window: Window, step: int = -1) -> Tensor:
        """Unit normal noise (B, C, F, h, w) of a window's absolute frames; see ``noise.py``."""
        return keyed_noise(
            self.request.seed,
            [video.index for video in self.request.videos],
            window.span,
            self.backbone.latent_shape(self.request.height, self.request.width),
            stage=self.stage,
            group=window.group,
            step=step,
        )

    def make_scheduler(self) -> Any:
        """A fresh scheduler, as the configuration says, over the checkpoint's own."""
        chosen = dict(self.config.get("scheduler") or {})
        options = {**chosen.pop("options", {})}
        name = chosen.pop("name", None)
        return sampling.make_scheduler(self.backbone.scheduler_config, name, **chosen, **options)

    def timesteps(self, scheduler: Any) -> Tensor:
        """Set the run's number of steps on a scheduler and return its timesteps, on the backbone's device."""
        steps = self.request.num_inference_steps
        try:
            scheduler.set_timesteps(steps, device=self.backbone.device)
        except ValueError as error:
            raise BadRequest(
                f"num_inference_steps={steps} does not suit {type(scheduler).__name__}: {error}"
            ) from error
        timesteps: Tensor = scheduler.timesteps
        return timesteps

    def prepare(self, window: Window) -> Window:
        """Recall, condition, refine and start one window; every ``sample`` calls this when it needs the window."""
        moments = self.moments
        window.memory = moments.recall(run=self, window=window)
        named = moments.condition(run=self, window=window)
        if "text" not in named:
            named["text"] = conditioning.text_per_frame(self, window)
        window.condition = moments.refine_condition(run=self, window=window, condition=conditioning.Condition(named))
        window.latents = moments.start_latents(run=self, window=window)
        return window

    def decode(self, window: Window) -> Iterator[FrameBlock]:
        """The kept frames of a finished window, a few at a time; ``remember`` sees all of them when it is owned."""
        latents = window.latents  # the window is released once its last block has left
        assert latents is not None
        wanted = self.moments.owners("remember")
        kept = []
        start = window.span.start
        for pixels in self.backbone.decode(latents, self.placement.vae_slice):
            stop = start + pixels.shape[1]
            if wanted:
                kept.append(pixels)
            first, last = max(start, window.keep.start), min(stop, window.keep.stop)
            if first < last:
                inside = pixels[:, first - start : last - start]
                yield FrameBlock(range(first, last), inside, window.index, last == window.keep.stop)
            start = stop
        if wanted:
            self.moments.remember(run=self, window=window, latents=latents, frames=torch.cat(kept, 1))


def build_model(run: Run) -> Backbone:
    """The backbone that the ``model`` group of the configuration describes, in the placement's dtype."""
    _, dtype = placements.device_and_dtype(run.config["placement"])
    backbone: Backbone = instantiate(run.config["model"], dtype=dtype)
    return backbone


CORE_HOOKS: dict[str, Callable[..., Any]] = {
    "build_backbone": build_model,
    "plan": sampling.one_window,
    "start_latents": sampling.keyed_start,
    "sample": sampling.scheduler_loop,
    "guide": sampling.classifier_free_guidance,
}
"""The core's own answer for each sole hook."""


@contextmanager
def opened(run: Run, backbone: Backbone | None = None) -> Iterator[Run]:
    """Load, place and attach the backbone of a run; everything is as it was found when the context ends.

    Args:
        backbone: One that is already loaded, to use it again.
    """
    backbone = backbone or run.moments.build_backbone(run=run)
    run.request.validate(backbone.size_multiple)
    placement = placements.plan(run.config["placement"], backbone, run.request)
    run.place(backbone, placement)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(placements.placed(backbone, placement))
        stack.enter_context(backbone.attention_installed(str(run.config.get("attention") or "auto")))
        stack.enter_context(run.moments.attach(run=run, backbone=backbone))
        backbone.verify_attention()
        yield run


def frames(
    run: Run,
    finished: Mapping[int, Callable[[], Tensor]] | None = None,
    done: Callable[[Window, bool], None] = lambda window, again: None,
) -> Iterator[FrameBlock]:
    """The loop: every group of the plan sampled, decoded and finished, frames leaving as they are ready.

    Args:
        finished: Windows that an earlier, interrupted run sampled: index -> its latents. They are decoded again, so
            that methods remember them and files that lost their end get it back, but not sampled.
        done: Called with each window of a group after the group's last block has left, and whether it was finished.
    """
    finished = finished or {}
    denoise = sampling.denoiser(run)
    waiting: dict[int, Group] = {}  # last window's index of a group -> the group

    def windows(group: Group) -> Iterator[Window]:
        if not all(window.index in finished for window in group.windows):
            yield from run.moments.sample(run=run, group=group, denoise=denoise)
            return
        for window in group.windows:
            window.latents = finished[window.index]().to(run.backbone.device)
            yield window

    def decoded() -> Iterator[FrameBlock]:
        for group in run.moments.plan(run=run):
            waiting[group.windows[-1].index] = group
            for window in windows(group):
                yield from run.decode(window)

    for block in run.moments.finish_frames(run=run, blocks=decoded()):
        run.moments.deliver(run=run, block=block)
        yield block
        if block.last and block.window in waiting:
            for window in waiting.pop(block.window).windows:
                done(window, window.index in finished)
                window.release()


def moments_of(composed: Composed, observers: Mapping[str, object] | None = None) -> Moments:
    """Build the chosen methods and register them for one run, in list order; conflicts are found here."""
    methods = {name: instantiate(settings) for name, settings in composed.methods.items()}
    return Moments(methods, composed.config["owner"], CORE_HOOKS, observers, trace=bool(composed.config["trace"]))


def batches_of(composed: Composed, observers: Mapping[str, object] | None = None) -> list[tuple[Request, Moments]]:
    """The request in batches of videos that are denoised together: scenes laid on the frames, hooks of their own.

    Everything that can be refused without a model is refused here, for all batches.
    """
    composed.request.validate(size_multiple=1)
    batches = []
    videos, size = composed.request.videos, composed.config["batch_size"]
    for start in range(0, len(videos), size):
        moments = moments_of(composed, observers)
        part = composed.request.replace(videos=videos[start : start + size])
        laid = single_scene(moments.prepare_request(request=part))
        laid.validate()
        batches.append((laid, moments))
    return batches


def generate(composed: Composed, observers: Mapping[str, object] | None = None) -> list[Path]:
    """Make the videos of a composed request; returns the files written.

    Args:
        observers: More objects with hooks that only look: progress, a collector of frames.

    Raises:
        BadRequest: for what was found before the run; VidgenError for a run that failed.
    """
    from vidgen_core.output import Output

    output = Output(composed.config)
    backbone: Backbone | None = None
    for request, moments in batches_of(composed, {**(observers or {}), "output": output}):
        run = Run(request, composed.config, moments)
        if not output.open(run):
            continue
        try:
            with opened(run, backbone):
                backbone = run.backbone
                run.provenance["weights"] = backbone.weights
                output.begin(run)
                for _ in frames(run, output.finished(), output.window_done):
                    pass
        except BaseException as error:
            moments.on_failure(run=run, moment=moments.current, error=error)
            raise
        finally:
            output.close(run)
    return output.files
