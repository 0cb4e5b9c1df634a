"""What an unfinished run leaves for ``resume=true``: the latents of each finished window, and how far the files are.

Latents are small and decoding them again is exact, so they are all that is needed: frames that did not reach the file
are decoded once more, and methods that remember see every earlier window as they did the first time.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class Journal:
    """A folder with the latents of each finished window and a line for it in ``windows.jsonl``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def batch_finished(self) -> bool:
        """Whether this batch, or the whole run it belongs to, came to its end."""
        return (self.folder / "finished").is_file() or not self.folder.parent.is_dir()

    def begin(self) -> None:
        """From here on the run counts as unfinished until ``finish``, whatever it leaves behind."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def add(self, window: int, keep: slice, latents: Tensor, frames: int) -> None:
        """Note a finished window: latents (B, C, F, h, w), which of its frames are kept, frames delivered so far."""
        from safetensors.torch import save

        # Through a file object, so that a full disk is an OSError as everywhere.
        self._file(window).write_bytes(save({"latents": latents.cpu().contiguous()}))
        # The line comes after the tensors: a window that stands in the list is whole.
        entry = {"window": window, "keep": [keep.start, keep.stop], "frames": frames}
        with (self.folder / "windows.jsonl").open("a") as lines:
            lines.write(json.dumps(entry) + "\n")

    def entries(self) -> list[dict[str, Any]]:
        """The finished windows in order: ``window``, ``keep``, ``frames``. A half-written last line does not count."""
        found: list[dict[str, Any]] = []
        lines = self.folder / "windows.jsonl"
        for line in lines.read_text().splitlines() if lines.is_file() else ():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return found

    def latents(self, window: int) -> Tensor:
        """The latents (B, C, F, h, w) of a finished window."""
        from safetensors.torch import load_file

        return load_file(self._file(window))["latents"]

    def kept_latents(self) -> Tensor:
        """The latents (B, C, F, h, w) of all kept frames of the video."""
        import torch

        parts = [self.latents(entry["window"])[:, :, slice(*entry["keep"])] for entry in self.entries()]
        return torch.cat(parts, dim=2)

    def finish(self, last: bool) -> None:
        """The batch has ended well: its latents go; after the ``last`` batch of the run nothing stays."""
        shutil.rmtree(self.folder.parent if last else self.folder, ignore_errors=True)
        if not last:
            self.begin()
            (self.folder / "finished").touch()

    def _file(self, window: int) -> Path:
        return self.folder / f"window_{window:05d}.safetensors"
