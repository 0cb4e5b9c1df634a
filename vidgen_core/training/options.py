"""What ``trainer.*`` must be beside the range of each number, told before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidgen_core.errors import BadRequest


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


def doubts(config: Mapping[str, Any]) -> list[str]:
    """What the user wrote and will not get, for the beginning of a training."""
    options, given = config["trainer"], config["given"]
    found = []
    if "trainer.export" in given and options["export"] == "best" and not options["validate_every"]:
        found.append(
            "trainer.export=best needs validation to know the best weights: the last will be the result. "
            "trainer.validate_every=100 validates."
        )
    return found
