"""What every stage shares: a wall-clock budget, a running average of weights, atomic files, a log."""

import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn


class Budget:
    """Wall-clock minutes that a stage may use; earlier minutes of a resumed stage count."""

    def __init__(self, minutes: float, used: float = 0.0) -> None:
        self._seconds = minutes * 60
        self._start = time.monotonic() - used

    @property
    def used(self) -> float:
        """Seconds spent."""
        return time.monotonic() - self._start

    @property
    def fraction(self) -> float:
        """Spent share in 0..1."""
        return min(self.used / self._seconds, 1.0)

    @property
    def spent(self) -> bool:
        return self.used >= self._seconds


def learning_rate_factor(step: int, fraction: float, warm_up: int = 100, floor: float = 0.03) -> float:
    """Linear warm-up by step, then a cosine over the budget down to `floor`."""
    cosine = 0.5 * (1 + math.cos(math.pi * fraction))
    return min((step + 1) / warm_up, 1.0) * (floor + (1 - floor) * cosine)


class AveragedWeights:
    """Exponential moving average of the floating-point state of a module, in float32."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay, self._step = module, decay, 0
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        self._step += 1
        # A young average follows closely, otherwise it would keep the initial weights for a long time.
        decay = min(self._decay, (1 + self._step) / (10 + self._step))
        for name, value in self._module.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)

    def copy_to(self, module: nn.Module) -> None:
        module.load_state_dict(self.state)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder beside its final place and swap it in, so that a reader always finds a whole one."""
    fresh, stale = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("fresh", "stale"))
    for leftover in (fresh, stale):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    if folder.exists():
        folder.rename(stale)
    fresh.rename(folder)
    shutil.rmtree(stale, ignore_errors=True)


def write_checkpoint(path: Path, content: object) -> None:
    """torch.save that never leaves a half-written file."""
    fresh = path.with_suffix(".fresh")
    torch.save(content, fresh)
    os.replace(fresh, path)


def log(message: str) -> None:
    print(time.strftime("%H:%M:%S"), message, flush=True)
