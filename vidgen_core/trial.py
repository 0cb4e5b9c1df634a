"""How methods are tried: a whole run of a few tiny frames, on a tiny model, from objects to frames, without files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from vidgen_core.card import READS, Plugin
from vidgen_core.config import Composed, compose
from vidgen_core.hookspecs import marked
from vidgen_core.instantiate import built_methods
from vidgen_core.overrides import FILES
from vidgen_core.plugin import Found

if TYPE_CHECKING:
    from torch import Tensor

SMALL: dict[str, Any] = {
    "prompt": "a dog runs",
    "num_frames": 4,
    "height": 32,
    "width": 32,
    "guidance_scale": 3.0,
    "num_inference_steps": 2,
    "placement.device": "cpu",
    "placement.dtype": "fp32",
}
TRAINING_HOOKS = ("data", "check_data", "trainable", "training_step", "losses", "finish_training")
"""Hooks that only a training calls."""
TINY = {"unet3d": "tiny", "unet2d": "tiny_image"}
"""Family -> the model on which methods of it are tried where their cards name none."""


def tiny_model(cards: Iterable[Plugin]) -> str | None:
    """A tiny model that all methods run on; None where there is none."""
    families = [card.families for card in cards]
    return next((model for family, model in TINY.items() if all(family in f for f in families)), None)


def trial_keys(methods: Mapping[str, Plugin], beside: Mapping[str, Plugin] | None = None) -> dict[str, Any]:
    """The keys with which methods are tried together: those of ``SMALL``, and over them what their cards need.

    Args:
        beside: All methods of a run from which some were left out; its model and sizes stay.
    """
    everyone = {**methods, **(beside or {})}
    shared = {key: value for card in everyone.values() for key, value in card.trial.items()}
    shared = {k: v for k, v in shared.items() if "." not in k and k not in ("prompt", *READS)}
    own = {key: value for card in methods.values() for key, value in card.trial.items()}
    return {**SMALL, "model": tiny_model(everyone.values()), **shared, **own}


def composed_trial(found: Mapping[str, Found], methods: Iterable[str], keys: Mapping[str, Any]) -> Composed:
    """The request of a trial as a user would write it. Raises BadRequest where the methods cannot run together."""
    keys = {key: value for key, value in keys.items() if key != "model" or value is not None}
    entries = [found[name] for name in methods]
    files = [entry.distribution for entry in entries if entry.build is not None and entry.version]
    objects = {entry.name: entry.build() for entry in entries if entry.build is not None and not entry.version}
    return compose([], {**keys, "method": [objects.get(name, name) for name in methods], FILES: files})


def trains_only(found: Mapping[str, Found], name: str, card: Plugin) -> bool:
    """Whether a method has hooks of trainings alone, so that videos are the same without it."""
    method = built_methods(composed_trial(found, [name], trial_keys({name: card})))[name]
    return all(hook in TRAINING_HOOKS for hook in marked(method))


def video_of(composed: Composed, before_weights: Callable[[], None] = lambda: None) -> Tensor:
    """The frames (B, F, 3, H, W), float in [0, 1], of a composed request.

    Args:
        before_weights: Called when all that is refused without a model would have been.
    """
    import torch

    from vidgen_core.run import Run, batches_of, frames, opened

    made = []
    for request, moments in batches_of(composed):
        before_weights()
        run = Run(request, composed.config, moments)
        with opened(run):
            made.append(torch.cat([block.frames for block in frames(run)], dim=1))
    return torch.cat(made)
