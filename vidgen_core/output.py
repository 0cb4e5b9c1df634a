"""The folder of a run: files that grow as frames leave, a record of how they were made, and a journal to go on from.

Layout: ``run.yaml`` and, for one video, ``video.mp4``, ``contact_sheet.png`` and what else was asked for beside it; for
several videos the same in a folder each.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vidgen_core import hookimpl, journal, provenance
from vidgen_core.contact_sheet import ContactSheet
from vidgen_core.errors import BadRequest
from vidgen_core.image_files import FrameFolder, Gif
from vidgen_core.journal import Journal
from vidgen_core.run_folder import choose_folder, claim_folder, is_resumed, placements_of
from vidgen_core.video_writer import VideoWriter, explained, make_plain, whole_frames

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from vidgen_core.request import VideoRequest
    from vidgen_core.run import FrameBlock, Run, Window
    from vidgen_core.sampling import Step

MADE = ("video.mp4", "video.gif", "contact_sheet.png", "latents.safetensors", "frames")
"""What a run may have made of a video, in the order in which it is named to the user."""


class Sink(Protocol):
    """Something that takes the frames of one video, in order."""

    def write(self, frames: np.ndarray) -> None: ...

    def close(self) -> list[Path]: ...


class Output:
    """Writes what a run delivers. One object serves all batches of a request: ``open`` .. ``close`` for each.

    Attributes:
        files: What was written, in order; complete after ``close``.
        folder: The folder of the request.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._config = config
        self._options: Mapping[str, Any] = config["output"]
        self.files: list[Path] = []
        self.folder = choose_folder(config)
        self._resumed = is_resumed(self.folder, config)
        self._placements = placements_of(self.folder, config) if self._resumed else {}
        self._sinks: list[list[Sink]] = []
        self._frames = 0  # delivered in this batch, kept ones included
        self._skip = 0  # frames that an earlier run already wrote
        self._failed = False
        self._first = self._made = True  # the batch is the first of the request; its folder was not there before
        self._record: dict[str, Any] = {}

    def _of(self, video: VideoRequest) -> Path:
        if len(self._config["videos"]) == 1:
            return self.folder
        return self.folder / _name(video.name, video.index)

    # ---------------------------------------------------------------------------------------------- run

    def open(self, run: Run) -> bool:
        """Make the batch's folders before any weight loads; False when an earlier run finished this batch already.

        Raises VidgenError when the folder cannot be written.
        """
        self._frames, self._skip, self._failed, self._sinks = 0, 0, False, []
        self._first = run.request.videos[0].index == self._config["videos"][0]["index"]
        with explained(self.folder):
            if self._first:
                self.folder, self._made = claim_folder(self.folder, self._config)
        self._journal = Journal(self.folder / "journal" / f"{run.request.videos[0].index:03d}")
        if self._resumed and self._journal.batch_finished:
            if not self._journal.folder.parent.is_dir():
                journal.remove(self._journal.folder.parent)  # what a run that was killed at its very end left of it
            made = [self._of(video) / name for video in run.request.videos for name in MADE]
            self.files += [path for path in made if path.exists()]
            return False
        with explained(self.folder), tempfile.TemporaryFile(dir=self.folder):
            pass  # it can be written
        return True

    def begin(self, run: Run) -> None:
        """The backbone is loaded: open the files, with the record of how they are made inside."""
        self._run = run
        with explained(self.folder):
            if self._first and not self._resumed:
                self._clear()
            self._journal.begin()
            self._write_record(run)
            self._skip = self._frames_on_disk(run) if self._resumed else 0
            for video in run.request.videos:
                self._of(video).mkdir(parents=True, exist_ok=True)
                self._sinks.append(self._sinks_of(video, run))

    def _clear(self) -> None:
        # Only now, when the weights are loaded, and only what a run writes: with output.overwrite=true an older run
        # goes as a whole, so that no frame of it stays among the new ones.
        names = [_name(**video) for video in self._config["videos"]]
        try:
            before = provenance.read_provenance(self.folder / "run.yaml")["config"]["videos"]
            names += [Path(_name(**video)).name for video in before]
        except (BadRequest, KeyError, TypeError):
            pass  # no run, or a record that was written by hand
        # The record first: what is left of a run that is being cleared away must not be gone on with.
        (self.folder / "run.yaml").unlink(missing_ok=True)
        journal.remove(self.folder / "journal")
        for folder in {self.folder, *(self.folder / name for name in names)}:
            for path in (*(folder / name for name in MADE), *folder.glob(f"frames/{'[0-9]' * 5}.png")):
                if path.is_file():
                    path.unlink()
        (self.folder / "preview.png").unlink(missing_ok=True)

    def _write_record(self, run: Run) -> None:
        delivered: list[int] = []
        windows = (window for group in run.groups for window in group.windows)
        for given, part in groupby(windows, key=lambda window: window.given is not None):
            frames = [len(window.keep) for window in part]
            # What the user gave is one piece, however it is read: no join of this run's lies inside it.
            delivered += [sum(frames)] if given else frames
        found = {**run.provenance, "window_frames": delivered, "notes": run.notes}
        # As it was asked for, not as an earlier run was placed: that is what the next resume is compared with.
        self._record = provenance.record(self._config, found)
        provenance.write_yaml(self.folder / "run.yaml", self._record)

    def _sinks_of(self, video: VideoRequest, run: Run) -> list[Sink]:
        folder, wanted = self._of(video), self._options
        sinks: list[Sink] = []
        if wanted["video"]:
            comment = json.dumps(self._record, ensure_ascii=False)
            tags = {"comment": comment, "title": " / ".join(video.prompts)[:200]}
            sinks.append(VideoWriter(folder / "video.mp4", run.request.fps, tags, wanted["crf"], self._skip))
        if wanted["contact_sheet"]:
            sinks.append(ContactSheet(folder / "contact_sheet.png", video.scenes))
        if wanted["gif"]:
            sinks.append(Gif(folder / "video.gif", run.request.fps))
        if wanted["frames"]:
            sinks.append(FrameFolder(folder / "frames"))
        return sinks

    # -------------------------------------------------------------------------------------------- resume

    def _frames_on_disk(self, run: Run) -> int:
        """Frames that every file of the batch holds whole; those that come again are the same, so all of them stay."""
        return min(whole_frames(self._of(video) / "video.mp4") for video in run.request.videos)

    def placements(self) -> dict[str, dict[str, Any]]:
        """How the interrupted run of this batch was placed, for ``Run.place_as``; nothing for a batch that is new."""
        return self._placements if self._resumed and self._journal.folder.is_dir() else {}

    def finished(self) -> dict[int, Any]:
        """Window index -> its latents, read when called, for the windows that an earlier run finished."""
        if not self._resumed:
            return {}
        return {e["window"]: lambda w=e["window"]: self._journal.latents(w) for e in self._journal.entries()}

    # --------------------------------------------------------------------------------------------- hooks

    @hookimpl
    def deliver(self, block: FrameBlock) -> None:
        """Append a block of frames to every file."""
        pixels = block.pixels()
        known = max(min(self._skip - self._frames, pixels.shape[1]), 0)
        self._frames += pixels.shape[1]
        with explained(self.folder):
            for frames, sinks in zip(pixels, self._sinks, strict=True):
                for sink in sinks:
                    # The video file kept its old frames; the other files are made anew from the same frames.
                    part = frames[known:] if isinstance(sink, VideoWriter) else frames
                    if len(part):
                        sink.write(part)

    @hookimpl
    def on_step(self, run: Run, window: Window, step: Step) -> None:
        """Every ``preview_every`` steps, ``preview.png``: the middle frame as it is estimated now."""
        every = self._options["preview_every"]
        if not every or (step.index + 1) % every:
            return
        middle = len(window.span) // 2
        cells = step.x0()[:1, :, middle : middle + 1]
        pixels = next(run.backbone.decode(cells))[0, 0].permute(1, 2, 0)
        from PIL import Image

        with explained(self.folder):
            Image.fromarray((pixels * 255).round().byte().numpy()).save(self.folder / "preview.png")

    @hookimpl
    def on_failure(self, error: BaseException) -> None:
        """The run ends early: the journal stays."""
        self._failed = True

    def window_done(self, window: Window, again: bool = False) -> None:
        """Note that a window's frames were delivered; ``again`` when an earlier run had noted it."""
        # Latents of given frames are only for the user: a resume reads the frames themselves.
        wanted = self._options["latents"] if window.given is not None else not again
        latents = self._run.latents_of(window) if wanted else None
        with explained(self.folder):
            if not again:
                self._journal.add(window.index, window.kept, latents)
            elif latents is not None:
                self._journal.save(window.index, latents)

    def close(self, run: Run) -> None:
        """Finish the files of a batch; after a failure they hold what was delivered, and the journal stays."""
        with explained(self.folder):
            self._close_sinks()
            if self._failed:
                self._leave(run)
                return
            if self._options["latents"]:
                self._save_latents(run)
            self._write_record(run)
            self.files += [f for f in [self.folder / "run.yaml"] if f not in self.files]
            self._journal.finish(last=run.request.videos[-1].index == self._config["videos"][-1]["index"])

    def _close_sinks(self) -> None:
        # Every file is closed, whatever befell another; after a failure its own error is the one to tell.
        errors: list[Exception] = []
        for sink in (sink for sinks in self._sinks for sink in sinks):
            try:
                self.files += sink.close()
                if isinstance(sink, VideoWriter) and not self._failed and sink.path.is_file():
                    make_plain(sink.path)
            except Exception as error:
                errors.append(error)
        if errors and not self._failed:
            self._failed = True
            raise errors[0]

    def _leave(self, run: Run) -> None:
        if self._frames or self._resumed or not self._first:
            where = shlex.quote(f"output.dir={self.folder}")
            line = f"What was made is in '{self.folder}'; the same command with {where} resume=true goes on."
            print(line, file=sys.stderr)
            return
        # Nothing was made: the same command, mended, must find the folder free.
        if self._record:
            (self.folder / "run.yaml").unlink(missing_ok=True)
            journal.remove(self.folder / "journal")
        made = [self._of(video) for video in run.request.videos] + [self.folder] * self._made
        for folder in dict.fromkeys(made):
            if folder.is_dir() and not any(folder.iterdir()) and (folder != self.folder or self._made):
                folder.rmdir()

    def _save_latents(self, run: Run) -> None:
        from safetensors.torch import save

        latents: Tensor = self._journal.kept_latents()
        for video, cells in zip(run.request.videos, latents, strict=True):
            file = self._of(video) / "latents.safetensors"
            file.write_bytes(save({"latents": cells[None].contiguous()}))
            self.files.append(file)


def _name(name: str, index: int, **_: Any) -> str:
    return name or f"video_{index:03d}"
