"""Parameters that FSDP spreads over the processes: read whole, written whole, and put together at the end.

All of this is the plain operation where nothing is spread. What reads a parameter whole is a collective: every process
must take part.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

UNITS = ("TemporalConvLayer", "TransformerTemporalModel")
"""Blocks that are gathered by themselves, where a network has them; all else is gathered for the whole step. Spatial
transformers are not among them, because their keys and values of the text are projected before the network is called,
nor are residual blocks, which a VAE has, too."""


def units_of(network: nn.Module) -> list[str]:
    """Names of the classes of ``UNITS`` that a network has."""
    there = {type(module).__name__ for module in network.modules()}
    return [name for name in UNITS if name in there]


def prepare_launched() -> None:
    """Say what ``accelerate launch --use_fsdp`` says otherwise, before accelerate reads it; a policy that the user
    chose stays."""
    # Else parameters become others, on no device, after those that must stay whole were listed, and the text encoder is
    # empty in all processes but the first.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    os.environ.setdefault("FSDP_AUTO_WRAP_POLICY", "TRANSFORMER_BASED_WRAP")  # gathers ``UNITS`` one by one


def keep_whole(parts: list[nn.Module], accelerator: Any) -> None:
    """Leave what does not train as it is in every process, in full precision."""
    if getattr(accelerator, "is_fsdp2", False):
        accelerator.state.fsdp_plugin.ignored_modules = parts


def begin_states(optimiser: torch.optim.Optimizer, accelerator: Any) -> None:
    """Give AdamW the state that it begins with for all parameters at once, as a checkpoint of FSDP must have it; some
    may have had no gradient when it is written, such as layers over time after steps on images."""
    if not getattr(accelerator, "is_fsdp2", False):
        return
    for parameter in (p for group in optimiser.param_groups for p in group["params"]):
        optimiser.state[parameter] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }


def whole(tensor: Tensor) -> Tensor:
    """The tensor with the parts of all processes."""
    full: Any = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def spread_as(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole value as a parameter is spread, on its device."""
    value = value.to(parameter.device, parameter.dtype)
    if not hasattr(parameter, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    spread: Any = parameter
    return distribute_tensor(value, spread.device_mesh, spread.placements)


def settle(network: nn.Module) -> None:
    """Let the next call gather the parameters anew: they were changed."""
    for module in network.modules():
        reshard: Any = getattr(module, "reshard", None)
        if reshard is not None:
            reshard()


@torch.no_grad()
def put_together(network: nn.Module) -> None:
    """Whole parameters, on the CPU, in the place of spread ones. The network is not called any more."""
    settle(network)
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and hasattr(parameter, "full_tensor"):
                module._parameters[name] = nn.Parameter(whole(parameter).cpu(), parameter.requires_grad)
