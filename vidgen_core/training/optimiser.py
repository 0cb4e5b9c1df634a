"""Optimiser, learning-rate schedule and averaged weights, as the configuration says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from vidgen_core.errors import BadRequest


def make_optimiser(
    trainables: Mapping[str, Tensor], options: Mapping[str, Any], given: Collection[str] = ("trainer.rate_scale",)
) -> torch.optim.Optimizer:
    """AdamW over groups of parameters, one for each learning rate.

    Args:
        given: The keys that the user wrote: factors that a model brings may name what does not train this time.

    Raises BadRequest where a factor names no parameter, or bitsandbytes is asked for and absent.
    """
    groups: dict[float, list[Tensor]] = {}
    scales = dict(_flat(options["rate_scale"]))
    written = any(key.startswith("trainer.rate_scale") for key in given)
    for part in scales:
        if written and not any(part in name for name in trainables):
            raise BadRequest(f"trainer.rate_scale.{part}: no parameter that trains has '{part}' in its name.")
    for name, parameter in trainables.items():
        factor = 1.0
        for part, scale in scales.items():
            factor *= float(scale) if part in name else 1.0
        groups.setdefault(factor, []).append(parameter)
    rate = options["learning_rate"]
    listed = [{"params": parameters, "lr": rate * factor} for factor, parameters in groups.items()]
    kind = _adamw_8bit() if options["optimizer"] == "adamw8bit" else torch.optim.AdamW
    optimiser: torch.optim.Optimizer = kind(
        listed, betas=tuple(options["betas"]), eps=options["epsilon"], weight_decay=options["weight_decay"]
    )
    return optimiser


def _adamw_8bit() -> Any:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise BadRequest(
            "trainer.optimizer=adamw8bit needs bitsandbytes: pip install bitsandbytes, or use adamw."
        ) from error
    return AdamW8bit


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    # "up_blocks.0" in a name arrives as nested keys.
    pairs: list[tuple[str, Any]] = []
    for name, value in tree.items():
        pairs += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return pairs


def make_schedule(optimiser: torch.optim.Optimizer, options: Mapping[str, Any], steps: int) -> Any:
    """diffusers' schedule; warm-up below 1 is a share of all steps."""
    from diffusers.optimization import get_scheduler

    warmup = options["warmup"]
    warmup = int(warmup * steps) if warmup < 1 else int(warmup)
    return get_scheduler(options["schedule"], optimiser, num_warmup_steps=warmup, num_training_steps=steps)


def make_average(trainables: Mapping[str, Tensor], decay: float) -> Any:
    """diffusers' averaged weights, whose decay rises from 0.1 to ``decay`` in the first steps; None for 0."""
    if not decay:
        return None
    from diffusers.training_utils import EMAModel

    return EMAModel(list(trainables.values()), decay=decay)
