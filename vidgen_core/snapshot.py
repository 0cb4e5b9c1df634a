"""What a backbone is made of, to see that a method left it as it was: the very objects, and their values."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from vidgen_core.models.backbone import Backbone


class Snapshot:
    """The modules, processors, hooks, tensors and settings of a backbone at this moment."""

    SETTINGS = ("reads", "preparers", "scheduler_config", "scheduler_changes", "trained_frames")

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self._parts = _parts(backbone)
        self._values = {name: tensor.detach().clone() for name, tensor in _tensors(backbone).items()}
        self._settings = {name: copy.copy(getattr(backbone, name)) for name in self.SETTINGS}

    def difference(self) -> str:
        """What is not as it was, in words; empty where all is."""
        now = _parts(self._backbone)
        for name in (*self._parts, *now):
            if name not in now or name not in self._parts or now[name] is not self._parts[name]:
                state = "gone" if name not in now else "new" if name not in self._parts else "another object"
                return f"{name} is {state}"
        for name, tensor in _tensors(self._backbone).items():
            if not torch.equal(tensor, self._values[name]):
                return f"{name} has other values"
        for name, setting in self._settings.items():
            if getattr(self._backbone, name) != setting:
                return f"backbone.{name} is another: {getattr(self._backbone, name)}"
        return ""


def _tensors(backbone: nn.Module) -> dict[str, Tensor]:
    return dict(backbone.named_parameters()) | dict(backbone.named_buffers())


def _parts(backbone: nn.Module) -> dict[str, object]:
    """Every module, what was set on it (processors, other functions), its hooks, and every tensor, by name."""
    parts: dict[str, object] = dict(_tensors(backbone))
    for path, module in backbone.named_modules():
        parts[path] = module
        parts[f"{path}.training={module.training}"] = None
        if path:  # what the core sets on the backbone itself is made anew for every run
            parts |= {f"{path}.{name}": value for name, value in vars(module).items() if callable(value)}
        for kind in ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks"):
            parts |= {f"hook {key} on {path}": hook for key, hook in getattr(module, kind).items()}
    parts |= {f"{name}.requires_grad={tensor.requires_grad}": None for name, tensor in backbone.named_parameters()}
    return parts
