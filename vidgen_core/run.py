"""One run: its windows, what it hands to the hooks, and the loop itself (``hookspecs.py`` is its story in words)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vidgen_core import conditioning, sampling
from vidgen_core import placement as placements
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.instantiate import built_methods, instantiate
from vidgen_core.moments import Moments
from vidgen_core.noise import Prior, keyed_noise
from vidgen_core.request import Request, single_scene
from vidgen_core.windows import FrameBlock as FrameBlock
from vidgen_core.windows import Group as Group
from vidgen_core.windows import Window as Window
from vidgen_core.windows import check_groups

if TYPE_CHECKING:
    from vidgen_core.config import Composed
    from vidgen_core.data.latent_cache import LatentCache
    from vidgen_core.data.sample import Batch
    from vidgen_core.models.backbone import Backbone
    from vidgen_core.placement import Placement


class Run:
    """What the hooks are given: the request, the parts that were loaded, and services that every method needs.

    Attributes:
        request: What is made; scenes are laid on absolute frames.
        config: The resolved configuration, plain data.
        moments: The hooks of this run.
        placement: Where tensors live; known once the backbone is loaded.
        backbone: The model; known from ``plan`` on.
        groups: The plan: groups of windows that together deliver every frame.
        texts: The distinct texts of the run, encoded once.
        provenance: What ``run.yaml`` records beside the configuration.
        stage: Keys the noise of nested runs: ``base``, ``refine``.
        batch: What is trained on now; None while a video is made.
        model_parameters: In a training, ``id`` of every parameter that the model came with -> its name.
        latent_cache: Where training keeps what the VAE made of its data, or None.
    """

    def __init__(self, request: Request, config: Mapping[str, Any], moments: Moments, stage: str = "base") -> None:
        self.request = request
        self.config = config
        self.moments = moments
        self.stage = stage
        self.placement: Placement
        self.backbone: Backbone
        self.groups: list[Group]
        self.texts: conditioning.TextTable
        self.provenance: dict[str, Any] = {}
        self.batch: Batch | None = None
        self.model_parameters: dict[int, str] = {}
        self.latent_cache: LatentCache | None = None
        self.placements: dict[str, dict[str, Any]] = {}  # of this run and those inside it, by stage, as configuration
        self._earlier: Mapping[str, Mapping[str, Any]] = {}
        self._asked: Mapping[str, Any] = config.get("placement") or {}
        self._prior: Prior | None = instantiate(config["noise"]) if config.get("noise") else None
        self.notes: list[str] = []  # warnings for the user, shown once
        for note in moments.notes:
            self.warn(note)

    def place(self, backbone: Backbone, placement: Placement) -> None:
        """Take the loaded backbone and its placement into the run."""
        self.backbone, self.placement = backbone, placement
        self.texts = conditioning.TextTable(backbone.encode_text)

    def place_as(self, earlier: Mapping[str, Mapping[str, Any]]) -> None:
        """Be placed as an interrupted run of the same request was: stage -> what was chosen there, as configuration.

        What is chosen automatically depends on the memory that is free, and passes of another size round differently.
        """
        self._earlier = earlier
        self.config = {**self.config, "placement": {**self._asked, **earlier.get(self.stage, {})}}

    def nested(self, stage: str, request: Request, methods: Mapping[str, object], config: Mapping[str, Any]) -> Run:
        """A run inside this one, with methods of its own; the same observers see its steps and hear its warnings.

        Args:
            stage: Keys its noise.
            config: What differs from this run's configuration.
        """
        outer = self.moments
        moments = Moments(methods, defaults=CORE_HOOKS, observers=outer.observers, trace=outer.trace)
        run = Run(request, {**self.config, **config}, moments, stage)
        run.notes, run.placements = self.notes, self.placements
        if self._earlier:
            run._asked = self._asked
            run.place_as(self._earlier)
        return run

    def warn(self, message: str) -> None:
        """Tell the user something once, with numbers; it is printed and kept in ``run.yaml``."""
        if message not in self.notes:
            self.notes.append(message)
            print(f"warning: {message}", file=sys.stderr)

    def noise(self, window: Window, step: int = -1) -> Tensor:
        """Unit normal noise (B, C, F, h, w) of a window's absolute frames; see ``noise.py``."""
        own = self._drawn(window.span, window.group, step)
        # No frame of any group, so that what is common is the same in all of them.
        return own if self._prior is None else self._prior(own, lambda: self._drawn(range(-1, 0), -1, step))

    def _drawn(self, frames: range, group: int, step: int) -> Tensor:
        return keyed_noise(
            self.request.seed,
            [video.index for video in self.request.videos],
            frames,
            self.backbone.latent_shape(self.request.height, self.request.width),
            stage=self.stage,
            group=group,
            step=step,
        )

    def make_scheduler(self) -> Any:
        """A fresh scheduler, as the configuration says, over the checkpoint's own."""
        chosen = dict(self.config.get("scheduler") or {})
        options = {**chosen.pop("options", {})}
        name = chosen.pop("name", None)
        chosen.pop("eta", None)  # of each step, not of the scheduler
        return sampling.make_scheduler(self.backbone.sampling_config, name, **{**chosen, **options})

    def timesteps(self, scheduler: Any) -> Tensor:
        """Set the run's number of steps on a scheduler and return its timesteps, on the backbone's device."""
        steps = self.request.num_inference_steps
        try:
            scheduler.set_timesteps(steps, device=self.backbone.device)
        except ValueError as error:
            raise BadRequest(
                f"num_inference_steps={steps} does not suit {type(scheduler).__name__}: {error}"
            ) from error
        trained = scheduler.config.num_train_timesteps
        if scheduler.timesteps.max() >= trained:
            raise BadRequest(
                f"num_inference_steps={steps} with {type(scheduler).__name__}'s spacing and offset reaches beyond the "
                f"{trained} steps of training. Use fewer steps, or scheduler.timestep_spacing=trailing."
            )
        timesteps: Tensor = scheduler.timesteps
        return timesteps

    def prepare(self, window: Window) -> Window:
        """Recall, condition, refine and start one window; every ``sample`` calls this when it needs the window."""
        self.conditioned(window)
        window.latents = self.moments.start_latents(run=self, window=window)
        return window

    def conditioned(self, window: Window) -> Window:
        """Recall, condition and refine one window: all that a training step needs of it."""
        moments = self.moments
        window.memory = moments.recall(run=self, window=window)
        named = moments.condition(run=self, window=window)
        if "text" not in named:
            named["text"] = conditioning.text_per_frame(self, window)
        window.condition = moments.refine_condition(run=self, window=window, condition=conditioning.Condition(named))
        conditioning.check_tokens(window.condition, moments.methods)
        unread = set(window.condition) - self.backbone.reads
        if unread:
            raise VidgenError(
                f"The condition '{min(unread)}' was supplied but nothing in the network reads it. A method that "
                "reads it adds its name to backbone.reads in its attach hook."
            )
        return window

    def decode(self, window: Window) -> Iterator[FrameBlock]:
        """The kept frames of a finished window, a few at a time; ``remember`` sees them all before they leave.

        Frames outside ``keep`` are never decoded. Where nobody remembers, no more than a few are ever held.
        """
        start, at_once = window.keep.start, self.placement.vae_slice
        parts: Iterable[Tensor]
        if window.given is not None:
            parts = self._given(window)[:, window.kept].split(at_once, dim=1)
        else:
            assert window.latents is not None
            parts = self.backbone.decode(window.latents[:, :, window.kept], at_once)
        if self.moments.owners("remember"):
            kept = torch.cat(list(parts), dim=1)
            latents = self.latents_of(window) if self.moments.asks("remember", "latents") else None
            self.moments.remember(run=self, window=window, latents=latents, frames=kept)
            parts = kept.split(at_once, dim=1)
        for pixels in parts:
            yield FrameBlock(range(start, start + pixels.shape[1]), pixels)
            start += pixels.shape[1]

    def latents_of(self, window: Window) -> Tensor:
        """The latents (B, C, F, h, w) of a finished window; given frames are encoded when first asked for here."""
        if window.latents is None:
            window.latents = self.backbone.to_latents(self._given(window), self.placement.vae_slice)
        return window.latents

    def _given(self, window: Window) -> Tensor:
        assert window.given is not None
        return window.given().expand(len(self.request.videos), -1, -1, -1, -1)


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
    # Inference begins last, so that weights which were moved or laid out anew are ordinary tensors afterwards.
    with attached(run, backbone), torch.inference_mode():
        yield run


@contextmanager
def attached(run: Run, backbone: Backbone | None = None) -> Iterator[None]:
    """``opened`` for a run inside another one, whose ``attach`` enters it: tensors may still be made for training."""
    surgeons = [name for name in run.moments.owners("attach") if name in run.moments.methods]
    compiled = str(run.config["placement"].get("compile"))
    if "graph" in compiled and surgeons:
        raise BadRequest(
            f"placement.compile={compiled} replays the network with fixed tensors, but '{surgeons[0]}' changes it from "
            "window to window. Use placement.compile=blocks."
        )
    backbone = backbone or run.moments.build_backbone(run=run)
    lay_out(run, backbone)
    with ExitStack() as stack:
        stack.enter_context(placements.placed(backbone, run.placement))
        stack.enter_context(backbone.attention_installed(str(run.config.get("attention") or "auto")))
        stack.enter_context(methods_attached(run, backbone))
        yield


@contextmanager
def methods_attached(run: Run, backbone: Backbone) -> Iterator[None]:
    """What the methods install is in the backbone inside the context, and nothing that others were not told of."""
    before = {*backbone.methods, *backbone.preparers}
    with run.moments.attach(run=run, backbone=backbone):
        backbone.verify_attention(run.moments.claims("attach"))
        added = {*backbone.methods, *backbone.preparers} - before
        strange = [name for name in sorted(added) if name.partition(".")[0] not in run.moments.methods]
        if strange:
            raise VidgenError(
                f"backbone.methods or backbone.preparers has '{strange[0]}', the name of no method of this run, so "
                f"that another could take it too. Methods use their own: {', '.join(run.moments.methods)}."
            )
        yield


def lay_out(run: Run, backbone: Backbone) -> None:
    """Give a run its backbone: check the request against it, lay the frames in windows and plan where tensors live."""
    run.backbone = backbone
    run.request.validate(backbone.size_multiple)
    run.groups = planned(run)
    longest = max(len(window.span) for group in run.groups for window in group.windows)
    run.place(backbone, placements.plan(run.config["placement"], backbone, run.request, longest))
    run.placements[run.stage] = run.placement.record()
    conditioning.warn_limits(run, longest)


def planned(run: Run) -> list[Group]:
    """The plan's groups. Raises VidgenError unless their windows deliver every frame once and in order."""
    groups = list(run.moments.plan(run=run))
    check_groups(groups, run.request.num_frames, run.moments.owners("plan")[0])
    return groups


def check_latents(run: Run, window: Window) -> None:
    """Raise VidgenError for sampled latents of another shape, or for what is no number."""
    shape = run.backbone.latent_shape(run.request.height, run.request.width)
    wanted = (len(run.request.videos), shape[0], len(window.span), *shape[1:])
    found = None if window.latents is None else tuple(window.latents.shape)
    if found != wanted:
        raise VidgenError(f"The latents of {window.span} were sampled in the shape {found}; it must be {wanted}.")
    if window.latents is not None and not torch.isfinite(window.latents).all():
        raise VidgenError(
            f"The latents of {window.span} came out as NaN or infinite. The weights are damaged, or a number was too "
            f"large for {run.backbone.dtype}: try placement.dtype=fp32 or bf16."
        )


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

    def windows(group: Group) -> Iterator[Window]:
        if all(window.given is not None for window in group.windows):
            yield from group.windows
            return
        if not all(window.index in finished for window in group.windows):
            yield from run.moments.sample(run=run, group=group, denoise=denoise)
            return
        for window in group.windows:
            if window.given is None:
                window.latents = finished[window.index]().to(run.backbone.device)
            yield window

    def decoded() -> Iterator[FrameBlock]:
        for group in run.groups:
            for window in windows(group):
                if window.given is None:
                    check_latents(run, window)
                yield from run.decode(window)
            # Reached when the next frames are asked for: those of this group have left by then.
            for window in group.windows:
                done(window, window.index in finished)
                window.release()

    for block in run.moments.finish_frames(run=run, blocks=decoded()):
        run.moments.deliver(run=run, block=block)
        yield block


def moments_of(composed: Composed, observers: Mapping[str, object] | None = None) -> Moments:
    """Build the chosen methods and register them for one run, in list order; conflicts are found here."""
    methods, config = built_methods(composed), composed.config
    return Moments(methods, config["owner"], CORE_HOOKS, observers, trace=bool(config["trace"]))


def batches_of(composed: Composed, observers: Mapping[str, object] | None = None) -> Iterator[tuple[Request, Moments]]:
    """The request in batches of videos that are denoised together: scenes laid on the frames, hooks of their own."""
    composed.request.validate(size_multiple=1)
    videos, size = composed.request.videos, composed.config["batch_size"]
    for start in range(0, len(videos), size):
        moments = moments_of(composed, observers)
        part = composed.request.replace(videos=videos[start : start + size])
        laid = single_scene(moments.prepare_request(request=part))
        laid.validate()
        yield laid, moments


def generate(composed: Composed, observers: Mapping[str, object] | None = None) -> list[Path]:
    """Make the videos of a composed request; returns the files written.

    Args:
        observers: More objects with hooks that only look: progress, a collector of frames.

    Raises:
        BadRequest: for what was found before the run; VidgenError for a run that failed.
    """
    from vidgen_core.output import Output

    for _ in batches_of(composed):
        pass  # what can be refused without a model is refused for all batches, before anything is written
    output = Output(composed.config)
    backbone: Backbone | None = None
    for request, moments in batches_of(composed, {**(observers or {}), "output": output}):
        run = Run(request, composed.config, moments)
        if not output.open(run):
            continue
        run.place_as(output.placements())
        try:
            with opened(run, backbone):
                backbone = run.backbone
                run.provenance |= {"weights": backbone.weights, "placement": run.placements.pop(run.stage)}
                if run.placements:
                    run.provenance["placements"] = run.placements  # of the runs inside it, by stage
                output.begin(run)
                for _ in frames(run, output.finished(), output.window_done):
                    pass
        except BaseException as error:
            moments.on_failure(run=run, moment=moments.failed_in, error=error)
            raise
        finally:
            output.close(run)
    return output.files
