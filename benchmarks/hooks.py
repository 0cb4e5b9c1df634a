"""What the hooks cost: the time of each call, and of all calls of a step against the step itself, no method active."""

from __future__ import annotations

import json
import time
import timeit

import torch
from models import make, vidgen_job

from vidgen_core import hookimpl
from vidgen_core.moments import Moments
from vidgen_core.run import CORE_HOOKS


class Everything:
    """A method with one cheap hook of each kind."""

    @hookimpl
    def plan(self) -> list[int]:
        return [0]

    @hookimpl
    def condition(self) -> dict[str, int]:
        return {}

    @hookimpl
    def after_step(self, latents: object) -> object:
        return latents

    @hookimpl
    def on_step(self) -> None: ...


def microseconds(call: object) -> float:
    return min(timeit.repeat(call, number=2000, repeat=5)) / 2000 * 1e6  # type: ignore[arg-type]


def main() -> None:
    defaults = {**CORE_HOOKS, "guide": lambda run, step, predict: None}
    arguments = {"run": None, "window": None, "step": None, "latents": None}
    result: dict[str, float] = {}
    for label, methods in (("none", {}), ("three", {f"m{i}": Everything() for i in range(3)})):
        owners = {"plan": "m0"} if methods else {}
        moments = Moments(methods, owners, defaults)
        result[f"guide, {label}"] = microseconds(lambda m=moments: m.guide(run=None, step=None, predict=None))
        for hook in ("after_step", "on_step"):
            result[f"{hook}, {label}"] = microseconds(lambda m=moments, h=hook: getattr(m, h)(**arguments))
        result[f"condition, {label}"] = microseconds(lambda m=moments: m.condition(run=None, window=None))
    torch.set_num_threads(1)
    for size, frames, cells in (("2m", 8, 8), ("130m", 16, 16)):
        backbone = make(size)
        latents = torch.randn(1, 4, frames, cells, cells)
        vidgen_job(backbone, latents, 1)
        start = time.process_time()
        vidgen_job(backbone, latents, 4)
        step = (time.process_time() - start) / 4
        hooks = sum(result[f"{hook}, none"] for hook in ("guide", "after_step", "on_step")) * 1e-6
        result[f"share of a step, {size}, percent"] = 100 * hooks / step
    print(json.dumps({key: round(value, 4) for key, value in result.items()}, indent=1))


if __name__ == "__main__":
    main()
