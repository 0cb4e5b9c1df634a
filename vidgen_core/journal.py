"""What an unfinished run leaves for ``resume=true``: the latents of each finished window.

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
        entries = self.entries()
        if entries:
            # A full disk or a kill may have left half a line, after which nothing could be read.
            part = self._lines.with_suffix(".part")
            part.write_text("".join(map(_line, entries)))
            part.replace(self._lines)
        else:
            self._lines.unlink(missing_ok=True)

    def add(self, window: int, keep: slice, latents: Tensor | None) -> None:
        """Note a finished window: latents (B, C, F, h, w), and which of its frames are kept.

        Frames that the user gave are read again by a resume, and need no latents.
        """
        if latents is not None:
            self.save(window, latents)
        # The line comes after the tensors: a window that stands in the list is whole.
        entry = {"window": window, "keep": [keep.start, keep.stop]}
        with self._lines.open("a") as lines:
            lines.write(_line(entry))

    def save(self, window: int, latents: Tensor) -> None:
        """Keep the latents (B, C, F, h, w) of a window."""
        from safetensors.torch import save

        # Through a file object, so that a full disk is an OSError as everywhere.
        self._file(window).write_bytes(save({"latents": latents.cpu().contiguous()}))

    def entries(self) -> list[dict[str, Any]]:
        """The finished windows in order: ``window``, ``keep``. A half-written last line does not count."""
        found: list[dict[str, Any]] = []
        for line in self._lines.read_text().splitlines() if self._lines.is_file() else ():
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
        """The batch has ended well: its latents go; after the ``last`` batch of the run nothing stays.

        What says so comes before anything is deleted: a journal of which half is gone must never be gone on with.
        """
        if not last:
            (self.folder / "finished").touch()
            for file in self.folder.glob("window*"):
                file.unlink(missing_ok=True)
            return
        remove(self.folder.parent)

    @property
    def _lines(self) -> Path:
        return self.folder / "windows.jsonl"

    def _file(self, window: int) -> Path:
        return self.folder / f"window_{window:05d}.safetensors"


def remove(folder: Path) -> None:
    """Delete the folder of all journals; from the first moment it is not there under its name."""
    leaving = folder.with_name(f"{folder.name}.old")
    shutil.rmtree(leaving, ignore_errors=True)  # a run that was killed here left it
    if folder.is_dir():
        folder.replace(leaving)
    shutil.rmtree(leaving, ignore_errors=True)


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry) + "\n"
