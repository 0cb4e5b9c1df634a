"""vidgen train key=value ...    Train a method or a model; on several GPUs: accelerate launch -m vidgen_core train ...

vidgen train experiment=<name>    Train as an experiment file says, stage by stage; finished stages are not repeated.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from vidgen_core.config import Composed, compose
from vidgen_core.experiments import stages_of


def main(arguments: Sequence[str]) -> int:
    """Compose every stage first, so that what cannot be done is told at once; then train one after another."""
    stages = stages_of(arguments, "train")
    for stage in stages:
        compose(stage.overrides, stage.values, entry="train")
    try:
        for stage in stages:
            if stage.finished:
                _tell(f"stage {stage.name}: finished before, in {stage.folder}")
                continue
            if len(stages) > 1:
                _tell(f"stage {stage.name}: vidgen train {stage.as_command()}")
            run(compose(stage.overrides, stage.values, entry="train"))
            stage.finish()
    except KeyboardInterrupt:
        _leave()
        raise
    # Not after an error, of which the other processes may know nothing: leaving would wait for them.
    _leave()
    return 0


def _leave() -> None:
    """Leave the group of processes: its threads, left to the end of the interpreter, may abort it."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from vidgen_core.training.machine import end_processes

        end_processes()


def run(composed: Composed) -> None:
    """Train a composed configuration and name what was written."""
    from vidgen_core.train import train

    for file in train(composed):
        print(file)


def _tell(message: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(message, file=sys.stderr, flush=True)
