"""Every hook of vidgen, in the order in which a run calls them.

A run, step by step (``run.py`` is this page as code)::

    request = prepare_request(request)                           chain    scenes, spans, frame counts
    backbone = build_backbone(run)                               sole     default: the model of the config
    groups = plan(run)                                           sole     default: one window over all frames
    with attach(run, backbone):                                  chain    install modules and processors, undo after
        for group in groups:
            for window in sample(run, group, denoise):           sole     default: the scheduler's loop; per window:
                recall(run, window)                              collect  -> window.memory
                condition(run, window)                           collect  -> window.condition
                refine_condition(run, window, condition)         chain
                start_latents(run, window)                       sole     default: noise keyed by absolute frame
                for every step:
                    guide(run, step, predict)                    sole     default: classifier-free guidance
                    after_step(run, window, step, latents)       chain    latents after the scheduler
                    on_step(run, window, step, latents)          observe  progress, previews
                remember(run, window, latents, frames)           observe  decoded, unquantised, before they leave
            finish_frames(run, blocks)                           chain    a stream of frames to a stream of frames
            deliver(run, block)                                  observe  writer, metrics
    on_failure(run, moment, error)                               observe

A training, step by step (``train.py`` is this half of the page as code)::

    source = data(run)                                           sole     default: the `data` of the config
    check_data(run, source)                                      observe  refuse data that teaches nothing
    backbone = build_backbone(run)                               sole
    with attach(run, backbone):                                  chain
        trainable(run, backbone)                                 collect  default: what `trainer.trainable` names
        for every micro-batch:
            prediction = training_step(run, batch)               sole     the `objective` of the config; it calls
                recall, condition, refine_condition              as above, over the batch's own captions
            losses(run, batch, prediction)                       collect  named terms; their sum is minimised
        finish_training(run, backbone)                           observe  the weights are final, not yet written

Kinds, enforced by ``moments.py`` before any weight loads:

``sole``
    One owner; the core has a default. Two owners are an error unless the user picks: ``owner.plan=a``.
``collect``
    Dictionaries, merged. A method supplies what it claims, ``@hookimpl(claims="text")``, and names that begin with its
    own; two methods that claim the same are refused. Losses need no claim: they are summed.
``chain``
    Each receives the previous value, in the order of ``method=[...]``; ``None`` means unchanged.
``observe``
    The result is ignored; all run.

``attach`` claims the kinds of attention that it replaces: ``self_attention``, ``cross_attention``,
``temporal_attention``. What wraps needs no claim, and comes around what replaces. A sole hook that its method cannot do
without claims itself, ``@hookimpl(claims="plan")``, and ``owner.plan=`` cannot take it away.

No hook is called inside a network's ``forward``: there a method is made of modules and processors that ``attach``
installs. Tensors: B videos, C channels, F frames, h w latent cells, H W pixels, L text tokens, D features.
Implement a hook with ``@vidgen_core.hookimpl`` and only the arguments you use, by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar, overload

import pluggy

if TYPE_CHECKING:
    from torch import Tensor

    from vidgen_core.conditioning import Condition
    from vidgen_core.data.sample import Batch, Source
    from vidgen_core.models.backbone import Backbone
    from vidgen_core.request import Request
    from vidgen_core.run import FrameBlock, Group, Run, Window
    from vidgen_core.sampling import Denoise, Predict, Step

HOOK_API_VERSION = 1
"""The version of this page, which a plugin states: ``Plugin(hook_api=1)``. It grows when a hook is removed or an
argument changes its meaning."""

OLDEST_HOOK_API = 1
"""The oldest version whose plugins still run, with a warning; older ones are refused."""

REMOVED: dict[str, str] = {}
"""Hook of an earlier version -> what to implement instead; a method that still has it is refused with these words.

Before it comes here, a hook is deprecated: its specification says ``_kind(..., instead="...")`` for a version at least.
Until then it is called as ever, and the method that has it is warned by name, with these words.
"""

Spec = TypeVar("Spec", bound=Callable[..., Any])

_implements = pluggy.HookimplMarker("vidgen")
_hookspec = pluggy.HookspecMarker("vidgen")

ATTENTIONS = ("self_attention", "cross_attention", "temporal_attention")
"""What ``attach`` can claim."""

SOLE, COLLECT, CHAIN, OBSERVE = "sole", "collect", "chain", "observe"


@overload
def hookimpl(function: Spec) -> Spec: ...


@overload
def hookimpl(*, claims: str | tuple[str, ...] = (), **options: Any) -> Callable[[Spec], Spec]: ...


def hookimpl(function: Any = None, *, claims: str | tuple[str, ...] = (), **options: Any) -> Any:
    """Mark a function as the hook of its name.

    Args:
        claims: What only one method of a run can have, a name or several: what a collect hook supplies, the kinds of
            attention that ``attach`` replaces, a sole hook itself. Two methods that claim the same are refused before
            weights load (in ``trainable`` where they train), and what is supplied or replaced without a claim is
            refused.
    """

    def mark(function: Spec) -> Spec:
        function.vidgen_claims = (claims,) if isinstance(claims, str) else tuple(claims)  # type: ignore[attr-defined]
        return _implements(**options)(function)

    return mark if function is None else mark(function)


def claims_of(method: object, hook: str) -> tuple[str, ...]:
    """What a method claims in one of its hooks."""
    return getattr(getattr(method, hook, None), "vidgen_claims", ())


def claimable(hook: str) -> tuple[str, ...] | None:
    """What can be claimed in a hook; None is whatever it supplies."""
    if hook == "attach":
        return ATTENTIONS
    kind = kinds().get(hook)
    if kind == COLLECT and hook != "losses":
        return None
    return (hook,) if kind == SOLE else ()


def _kind(kind: str, instead: str = "") -> Callable[[Spec], Spec]:
    def mark(function: Spec) -> Spec:
        function.vidgen_kind = kind  # type: ignore[attr-defined]
        function.vidgen_instead = instead  # type: ignore[attr-defined]
        return _hookspec(function)

    return mark


# ------------------------------------------------------------------------------------------------ once


@_kind(CHAIN)
def prepare_request(request: Request) -> Request | None:
    """Return the request with its scenes laid on the frame axis (``request.replace(...)``), or None.

    Called before any weight is loaded: raise ``BadRequest`` here for what can never work.
    """


@_kind(SOLE)
def build_backbone(run: Run) -> Backbone:
    """Return the denoiser with its VAE and text encoder. Default: the ``model`` of the configuration."""


@_kind(CHAIN)
def attach(run: Run, backbone: Backbone) -> AbstractContextManager[None] | None:
    """Return a context manager that installs what the method changes and restores the very objects on exit.

    Entered after the core's own processors are in place, those that claim a kind of attention first, else in list
    order; left in reverse, also after an exception. Use ``vidgen_core.attention.install`` for processors.
    """


@_kind(SOLE)
def plan(run: Run) -> Iterable[Group]:
    """Return the groups of windows in the order of time; their indices count from 0 and their ``keep`` spans cover
    all frames once, in order. Called once, when the backbone's geometry is known and nothing is placed yet."""


# ---------------------------------------------------------------------------------------------- window


@_kind(COLLECT)
def recall(run: Run, window: Window) -> dict[str, Any]:
    """Return what the video remembers for this window; merged into ``window.memory``."""


@_kind(COLLECT)
def condition(run: Run, window: Window) -> dict[str, Any]:
    """Return named conditions of the window's frames; the core supplies ``text`` if nobody does.

    ``text``: ``Branches(cond, uncond)`` of ``PerFrameText``. A value may be ``Branches`` or one for both.
    """


@_kind(CHAIN)
def refine_condition(run: Run, window: Window, condition: Condition) -> Condition | None:
    """Return the condition changed, once per window, both guidance branches, before expansion over frames."""


@_kind(SOLE)
def start_latents(run: Run, window: Window) -> Tensor:
    """Return the latents (B, C, F, h, w) of the first step at unit variance. Default: ``run.noise(window)``.

    Latents of a later step's noise level are returned as they are, with ``window.first_step`` set to that step.
    """


# ------------------------------------------------------------------------------------- sampling: group, step


@_kind(SOLE)
def sample(run: Run, group: Group, denoise: Denoise) -> Iterator[Window]:
    """Yield the windows of the group as their latents are finished, preparing each lazily by ``run.prepare``."""


@_kind(SOLE)
def guide(run: Run, step: Step, predict: Predict) -> Tensor:
    """Return one prediction from ``predict("cond")``, ``predict("uncond")`` or ``predict("cond", "uncond")``."""


@_kind(CHAIN)
def after_step(run: Run, window: Window, step: Step, latents: Tensor) -> Tensor | None:
    """Return the latents (B, C, F, h, w) corrected after the scheduler's step, or None."""


@_kind(OBSERVE)
def on_step(run: Run, window: Window, step: Step, latents: Tensor) -> None:
    """See a finished step; ``step.x0()`` gives the present estimate of the clean latents. Must not modify."""


# ------------------------------------------------------------------------------------------ memory, output


@_kind(OBSERVE)
def remember(run: Run, window: Window, latents: Tensor, frames: Tensor) -> None:
    """Keep what later windows need of a finished one, before its frames leave.

    ``latents`` (B, C, F, h, w) are those of the window's span, ``frames`` (B, F', 3, H, W) those of its ``keep``: float
    in [0, 1], unquantised, on the CPU.
    """


@_kind(CHAIN)
def finish_frames(run: Run, blocks: Iterator[FrameBlock]) -> Iterator[FrameBlock] | None:
    """Return a stream of frame blocks made from the stream: enhancement, interpolation, trimming."""


@_kind(OBSERVE)
def deliver(run: Run, block: FrameBlock) -> None:
    """See finished frames leave, in order, in blocks of a few frames."""


@_kind(OBSERVE)
def on_failure(run: Run, moment: str, error: BaseException) -> None:
    """See the error that ends the run and the moment in which it rose; files already written stay."""


# ---------------------------------------------------------------------------------------------- training


@_kind(SOLE)
def data(run: Run) -> Source:
    """Return where the samples come from, before any weight is loaded. Default: the ``data`` of the configuration."""


@_kind(OBSERVE)
def check_data(run: Run, source: Source) -> None:
    """See where samples come from, before any weight is loaded. Raise BadRequest, which names the key, for a source
    that has not what a method is to learn from, as far as ``vidgen_core.data.sample.extras_of`` tells."""


@_kind(COLLECT)
def trainable(run: Run, backbone: Backbone) -> dict[str, Tensor]:
    """Return the parameters that train, as {name: parameter}; all others are frozen.

    Called once, when every learned module is registered on the backbone and before optimiser and wrapping.
    """


@_kind(SOLE)
def training_step(run: Run, batch: Batch) -> Any:
    """Return what ``losses`` need of one micro-batch; ``vidgen_core.training.denoising.Prediction`` by the default
    objective. ``run.batch`` is the batch and ``run.request`` holds its captions on its frames."""


@_kind(COLLECT)
def losses(run: Run, batch: Batch, prediction: Any) -> dict[str, Tensor]:
    """Return named scalar loss terms, already weighted; their sum is minimised."""


@_kind(OBSERVE)
def finish_training(run: Run, backbone: Backbone) -> None:
    """See the final (averaged) weights in place before they are written; may change them."""


def deprecated() -> dict[str, str]:
    """Hooks that are on their way out -> what to implement instead."""
    return {name: instead for name in kinds() if (instead := getattr(globals()[name], "vidgen_instead", ""))}


def marked(method: object) -> list[str]:
    """Names of the functions of an object or a class that are marked as hooks, whether there are such hooks or not."""
    return [name for name in dir(method) if hasattr(getattr(method, name, None), "vidgen_impl")]


def kinds() -> dict[str, str]:
    """Every hook's name and kind, in the order of this page."""
    return {name: f.vidgen_kind for name, f in globals().items() if hasattr(f, "vidgen_kind")}
