"""What ``trainer.*`` must be beside the range of each number, told before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vidgen_core.data.sample import recurring
from vidgen_core.errors import BadRequest

if TYPE_CHECKING:
    from vidgen_core.data.sample import Source


def check_options(options: Mapping[str, Any]) -> None:
    """Raise BadRequest, which names the key, for a list that a training could not begin or go on with."""
    betas = options["betas"]
    if len(betas) != 2 or not all(isinstance(beta, int | float) and 0 <= beta < 1 for beta in betas):
        raise BadRequest(
            f"trainer.betas={betas}: AdamW takes two numbers, from 0 to below 1, such as trainer.betas=[0.9,0.999]."
        )
    if options["validation_timesteps"] == []:
        raise BadRequest(
            "trainer.validation_timesteps=[] leaves nothing to validate at. Give one timestep or more, such as "
            "trainer.validation_timesteps=[100,500,950], or validate never: trainer.validate_every=0."
        )


def doubts(config: Mapping[str, Any], source: Source) -> list[str]:
    """Settings that will not do what they are there for, as a warning each."""
    options, given = config["trainer"], config["given"]
    found = []
    if "trainer.export" in given and options["export"] == "best" and not options["validate_every"]:
        found.append(
            "trainer.export=best needs validation to know the best weights: the last will be the result. "
            "trainer.validate_every=100 validates."
        )
    if options["cache"] == "latents" and recurring(source) is False:
        found.append(
            "trainer.cache=latents finds little again where clips begin at random, and grows with every step. Use "
            "trainer.cache=none, or data.start=middle for the same frames every time."
        )
    return found
