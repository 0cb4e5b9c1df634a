"""Checkpoints to resume from: written whole or not at all, a few kept, the last good one never touched.

``checkpoints/step_00000500/`` holds what trains, the averaged weights, and accelerate's own files for the optimiser,
the schedule, the gradient scaler and the random state; ``checkpoints/best/`` the weights of the lowest validation loss;
``checkpoints/index.json`` says which is which.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import SCALER_NAME
from safetensors.torch import load_file, save_file
from torch import Tensor

from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.training.disk import disk_explained, to_disk
from vidgen_core.training.reading import summed
from vidgen_core.training.sharding import spread_as, whole

if TYPE_CHECKING:
    from accelerate import Accelerator

WEIGHTS, AVERAGED, STATE = "trained.safetensors", "averaged.safetensors", "state.json"


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: Where they lie; made when the first is written.
        accelerator: Everything prepared by it is saved; the weights only as far as they train.
        trainables: Name -> parameter.
        averaged: diffusers' ``EMAModel`` of them, or None.
        keep: How many are kept beside the best.
        samples: Of one optimiser step, over all processes and micro-batches.
        items: Of the data, which decide what a step shows and how many steps an epoch has; 0 where they have no end.
    """

    def __init__(
        self,
        folder: Path,
        accelerator: Accelerator,
        trainables: Mapping[str, Tensor],
        averaged: Any,
        keep: int,
        samples: int,
        items: int = 0,
    ) -> None:
        self.folder = folder
        self.accelerator = accelerator
        self.trainables = trainables
        self.averaged = averaged
        self.keep = keep
        self.samples = samples
        self.items = items
        accelerator.register_save_state_pre_hook(self._save_weights)
        accelerator.register_load_state_pre_hook(self._load_weights)

    @property
    def _by_fsdp(self) -> bool:
        """Whether every process writes a part of the optimiser."""
        return bool(getattr(self.accelerator, "is_fsdp2", False))

    @property
    def index(self) -> dict[str, Any]:
        """``last``: name of the newest, ``best``: its step and validation loss; either may be absent."""
        file = self.folder / "index.json"
        return dict(json.loads(file.read_text())) if file.is_file() else {}

    def save(self, step: int) -> None:
        """Write the checkpoint after ``step`` optimiser steps. Raises VidgenError where the disk refuses."""
        name = f"step_{step:08d}"
        if (self.folder / name / STATE).is_file():
            return

        def write(fresh: Path) -> None:
            self.accelerator.save_state(str(fresh), safe_serialization=True)
            if self.accelerator.is_main_process:
                state = {"step": step, "processes": self.accelerator.num_processes, "samples": self.samples}
                state |= {"items": self.items, "fsdp": self._by_fsdp}
                if self.averaged is not None:
                    state["averaged"] = {k: v for k, v in self.averaged.state_dict().items() if k != "shadow_params"}
                (fresh / STATE).write_text(json.dumps(state))

        self._write_whole(name, write)
        self._note(last=name)
        self._retire(name)

    def save_best(self, step: int, loss: float) -> None:
        """Keep the present weights, averaged where they are, as those of the lowest validation loss so far."""
        best = self.index.get("best")
        if not math.isfinite(loss) or (best is not None and best["loss"] <= loss):
            return

        weights = self.final_weights()

        def write(fresh: Path) -> None:
            if self.accelerator.is_main_process:
                save_file(weights, fresh / WEIGHTS)

        self._write_whole("best", write)
        self._note(best={"step": step, "loss": loss})

    def load(self) -> int:
        """Restore the newest checkpoint; returns its step, 0 where there is none.

        The processes may be another number, as long as a step has as many samples: they go on with the samples and the
        noise that were due, but dropout is drawn for each process. Raises BadRequest for one of another number of
        samples, of data of another length, or of other parameters, and VidgenError for one that is damaged.
        """
        folder = self._newest()
        if folder is None:
            return 0
        try:
            return self._restore(folder)
        except (VidgenError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # every reader has words of its own, and FSDP's is no Exception
            older = self._whole()[:-1]
            mend = f"resume=true then goes on from '{older[-1]}'" if older else "there is no other, so start anew"
            raise VidgenError(
                f"The checkpoint '{folder}' cannot be read ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}). If it is damaged, remove that folder; {mend}."
            ) from error

    def final_weights(self) -> dict[str, Tensor]:
        """Name -> the averaged parameter where there are averages, else the parameter itself; on the CPU."""
        values = self.trainables.values() if self.averaged is None else self.averaged.shadow_params
        return {n: whole(v.detach()).cpu().contiguous() for n, v in zip(self.trainables, values, strict=True)}

    @torch.no_grad()
    def put_final_weights(self, which: str) -> None:
        """Put the final weights into the model: ``last``, or ``best`` where there is one."""
        file = self.folder / "best" / WEIGHTS
        found = load_file(file) if which == "best" and file.is_file() else self.final_weights()
        for name, parameter in self.trainables.items():
            parameter.copy_(spread_as(found[name], parameter))

    # ------------------------------------------------------------------------------------------- files

    def _whole(self) -> list[Path]:
        """The checkpoints to go on from, oldest first: what has its place was written whole, noted or not."""
        return sorted(file.parent for file in self.folder.glob(f"step_*/{STATE}"))

    def _newest(self) -> Path | None:
        """The last checkpoint that is whole. The index does not decide: a crash may have come before its note."""
        found, last = self._whole(), self.index.get("last")
        if last is not None and not found:
            raise BadRequest(f"The checkpoint '{self.folder / last}' is gone, and there is no other. Start anew.")
        return found[-1] if found else None

    def _restore(self, folder: Path) -> int:
        state = json.loads((folder / STATE).read_text())
        if state["samples"] != self.samples:
            raise BadRequest(
                f"'{folder}' is of a training with {state['samples']} samples a step, this one has {self.samples}. "
                "trainer.batch_size, trainer.accumulation and the processes may change as long as their product stays."
            )
        before = state.get("items", self.items)  # older checkpoints do not tell
        if before != self.items:
            raise BadRequest(
                f"'{folder}' is of a training on data of {before} items, which has {self.items} now: steps would show "
                "others, and epochs take another number of steps. Give the data as it was, or train it as it is in "
                "another output.dir."
            )
        if state.get("fsdp", False) != self._by_fsdp:
            kind = "without" if self._by_fsdp else "with"
            raise BadRequest(f"'{folder}' was written {kind} FSDP. Start the training as it was started then.")
        # Without a gradient scaler (bf16, fp32) there is none to load: one that is new here begins anew.
        scaler = self.accelerator.scaler
        self.accelerator.scaler = scaler if (folder / SCALER_NAME).is_file() else None
        self.accelerator.load_state(str(folder))
        self.accelerator.scaler = scaler
        if self.averaged is not None:
            shadow = load_file(folder / AVERAGED)
            kept = [spread_as(shadow[name], parameter) for name, parameter in self.trainables.items()]
            self.averaged.load_state_dict(state["averaged"] | {"shadow_params": kept})
        return int(state["step"])

    def _save_weights(self, models: list[Any], weights: list[Any], folder: str) -> None:
        weights.clear()  # accelerate is to save no model: most of it is frozen
        own = {name: whole(p.detach()).cpu().contiguous() for name, p in self.trainables.items()}
        averaged = self.final_weights() if self.averaged is not None else {}
        if self.accelerator.is_main_process:
            save_file(own, Path(folder) / WEIGHTS)
            if averaged:
                save_file(averaged, Path(folder) / AVERAGED)

    @torch.no_grad()
    def _load_weights(self, models: list[Any], folder: str) -> None:
        models.clear()
        found = load_file(Path(folder) / WEIGHTS)
        other = set(found) ^ set(self.trainables)
        other |= {n for n, p in self.trainables.items() if n in found and found[n].shape != p.shape}
        if other:
            raise BadRequest(
                f"The checkpoint '{folder}' is of another training: {len(other)} parameters differ, first "
                f"'{min(other)}'. Resume with the model, methods and trainer.trainable that wrote it."
            )
        for name, parameter in self.trainables.items():
            parameter.copy_(spread_as(found[name], parameter))

    def _write_whole(self, name: str, write: Callable[[Path], None]) -> None:
        fresh, final = self.folder / f".{name}.unfinished", self.folder / name
        main = self.accelerator.is_main_process
        try:
            with disk_explained(final, self._stays()):
                if main:
                    shutil.rmtree(fresh, ignore_errors=True)
                    fresh.mkdir(parents=True)
                self.accelerator.wait_for_everyone()
                self._write_together(partial(write, fresh))
                if main:
                    to_disk(fresh)
                    old = self.folder / f".{name}.old"
                    if final.exists():
                        final.rename(old)
                    fresh.rename(final)
                    shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def _write_together(self, write: Callable[[], None]) -> None:
        """Have every process write its part. Where one cannot all give up, but none while another is still writing."""
        error: Exception | None = None
        try:
            write()
        except Exception as found:
            if self._by_fsdp:  # the others wait inside, for a part that this one was to send
                raise
            error = found
        if summed([error is not None], self.accelerator)[0]:
            raise error or VidgenError("Another process could not write its part of the checkpoint.")

    def _stays(self) -> str:
        found = self._whole()
        return f"The checkpoint '{found[-1]}' stays" if found else "No checkpoint was written before"

    def _note(self, **entries: Any) -> None:
        if self.accelerator.is_main_process:
            file, fresh = self.folder / "index.json", self.folder / ".index.json"
            with disk_explained(file, self._stays()):
                fresh.write_text(json.dumps({**self.index, **entries}))
                fresh.replace(file)

    def _retire(self, newest: str) -> None:
        # A later one than the newest is not whole, or the training would have gone on from it.
        if self.accelerator.is_main_process:
            found = sorted(path for path in self.folder.glob("step_*"))
            for old in [p for p in found if p.name > newest] + [p for p in found if p.name <= newest][: -self.keep]:
                shutil.rmtree(old, ignore_errors=True)
