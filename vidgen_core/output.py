"""The folder of a run: files that grow as frames leave, a record of how they were made, and a journal to go on from.

Layout: ``run.yaml`` and, for one video, ``video.mp4``, ``contact_sheet.png`` and what else was asked for beside it; for
several videos the same in a folder each.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vidgen_core import hookimpl, provenance
from vidgen_core.contact_sheet import ContactSheet
from vidgen_core.errors import BadRequest
from vidgen_core.image_files import FrameFolder, Gif
from vidgen_core.journal import Journal
from vidgen_core.video_writer import VideoWriter, explained

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from vidgen_core.request import VideoRequest
    from vidgen_core.run import FrameBlock, Run, Window
    from vidgen_core.sampling import Step

OWN = ("output", "resume", "trace", "debug", "given", "choices")
"""Keys of a configuration that may differ when a run is resumed: they change no frame."""


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
        self.folder: Path = self._choose_folder()
        self._resumed = self._check_folder()
        self._sinks: list[list[Sink]] = []
        self._frames = 0  # delivered in this batch, kept ones included
        self._skip = 0  # frames that an earlier run already wrote
        self._failed = False
        self._record: dict[str, Any] = {}

    # ------------------------------------------------------------------------------------------- folder

    def _choose_folder(self) -> Path:
        if self._options["dir"]:
            return Path(self._options["dir"]).expanduser()
        if self._config["resume"]:
            raise BadRequest("resume=true needs the folder of the unfinished run: output.dir=...")
        what = "+".join(self._config["method"]) or self._config["choices"]["model"]
        first = Path(self._options["root"]).expanduser() / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{what}"
        names = (first, *(first.with_name(f"{first.name}-{i}") for i in range(2, 10_000)))
        return next(name for name in names if not name.exists())

    def _check_folder(self) -> bool:
        """Whether the folder holds a run to go on with; raises BadRequest for one that must not be touched."""
        found = self.folder / "run.yaml"
        if not found.is_file():
            if self._config["resume"]:
                raise BadRequest(f"resume=true, but '{self.folder}' holds no run. Leave resume out to start one there.")
            if self.folder.is_dir() and any(self.folder.iterdir()) and not self._options["overwrite"]:
                raise BadRequest(
                    f"The folder '{self.folder}' is not empty. Give another output.dir, or output.overwrite=true."
                )
            return False
        if self._config["resume"]:
            before = provenance.read_provenance(found)["config"]
            now = json.loads(json.dumps(self._config))
            changed = sorted(k for k in {*before, *now} - set(OWN) if before.get(k) != now.get(k))
            if changed:
                raise BadRequest(
                    f"The run in '{self.folder}' was started with another {', '.join(changed)}. Repeat its command "
                    "with resume=true, or give another output.dir."
                )
            return True
        if not self._options["overwrite"]:
            raise BadRequest(
                f"The folder '{self.folder}' already holds a run. Give another output.dir, resume=true to go on with "
                "it, or output.overwrite=true."
            )
        return False

    def _of(self, video: VideoRequest) -> Path:
        if len(self._config["videos"]) == 1:
            return self.folder
        return self.folder / (video.name or f"video_{video.index:03d}")

    # ---------------------------------------------------------------------------------------------- run

    def open(self, run: Run) -> bool:
        """Make the batch's folders before any weight loads; False when an earlier run finished this batch already.

        Raises VidgenError when the folder cannot be written.
        """
        self._frames, self._skip, self._failed, self._sinks = 0, 0, False, []
        self._journal = Journal(self.folder / "journal" / f"{run.request.videos[0].index:03d}")
        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write_record(run)
        if self._resumed and not self._journal.exists:
            done = [video for video in run.request.videos if (self._of(video) / "video.mp4").is_file()]
            if len(done) == len(run.request.videos):
                return False
        if not self._resumed:
            self._journal.remove()
        return True

    def begin(self, run: Run) -> None:
        """The backbone is loaded: open the files, with the record of how they are made inside."""
        with explained(self.folder):
            self._write_record(run)
            self._skip = self._frames_on_disk(run) if self._resumed else 0
            for video in run.request.videos:
                self._of(video).mkdir(parents=True, exist_ok=True)
                self._sinks.append(self._sinks_of(video, run))

    def _write_record(self, run: Run) -> None:
        self._record = provenance.record(run.config, {**run.provenance, "notes": run.notes})
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
        """Frames of finished windows that every file of the batch holds whole."""
        from vidgen_core.video import VideoReader

        counts = []
        for video in run.request.videos:
            file = self._of(video) / "video.mp4"
            try:
                counts.append(len(VideoReader(file, "pyav")))
            except BadRequest:
                counts.append(0)
        borders = [entry["frames"] for entry in self._journal.entries() if entry["frames"] <= min(counts)]
        return max(borders, default=0)

    def finished(self) -> dict[int, Any]:
        """Window index -> its latents, read when called, for the windows that an earlier run finished."""
        if not self._resumed:
            return {}
        return {e["window"]: lambda w=e["window"]: self._journal.latents(w) for e in self._journal.entries()}

    # --------------------------------------------------------------------------------------------- hooks

    @hookimpl
    def deliver(self, block: FrameBlock) -> None:
        """Append a block of frames to every file. Rounded to the nearest of 256 levels."""
        pixels = (block.frames.clamp(0, 1) * 255).round().byte().permute(0, 1, 3, 4, 2).cpu().numpy()
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
        if not again:
            assert window.latents is not None
            with explained(self.folder):
                self._journal.add(window.index, window.kept, window.latents, self._frames)

    def close(self, run: Run) -> None:
        """Finish the files of a batch; after a failure they hold what was delivered, and the journal stays."""
        with explained(self.folder):
            for sinks in self._sinks:
                for sink in sinks:
                    self.files += sink.close()
            if self._failed:
                if not self._frames and not self._resumed:
                    self._remove_traces()
                return
            if self._options["latents"]:
                self._save_latents(run)
            self._write_record(run)
            self.files += [f for f in [self.folder / "run.yaml"] if f not in self.files]
            self._journal.remove()
            if self._journal.folder.parent.is_dir() and not any(self._journal.folder.parent.iterdir()):
                self._journal.folder.parent.rmdir()

    def _remove_traces(self) -> None:
        # Nothing was made: the same command, mended, must find the folder free.
        (self.folder / "run.yaml").unlink(missing_ok=True)
        for folder in [*self.folder.glob("*"), self.folder]:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()

    def _save_latents(self, run: Run) -> None:
        from safetensors.torch import save_file

        latents: Tensor = self._journal.kept_latents()
        for video, cells in zip(run.request.videos, latents, strict=True):
            file = self._of(video) / "latents.safetensors"
            save_file({"latents": cells[None].contiguous()}, file)
            self.files.append(file)
