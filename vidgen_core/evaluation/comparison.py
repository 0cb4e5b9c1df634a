"""The videos of an experiment: every row makes every story, with the same noise, by the ordinary command.

Stories of one length are denoised together. A part of them is a run with a folder of its own below ``videos/``, so a
command that was interrupted goes on where it was, and one with a larger ``n`` makes only the parts that are new.
``edits.py`` has other parts; that and ``trained.py`` train before they make them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from vidgen_core import hookimpl
from vidgen_core.config import Composed, compose
from vidgen_core.errors import BadRequest
from vidgen_core.evaluation.config import Evaluation, Row
from vidgen_core.instantiate import instantiate
from vidgen_core.metrics.footage import Footage
from vidgen_core.provenance import read_provenance
from vidgen_core.run_folder import differences
from vidgen_core.values import flatten

if TYPE_CHECKING:
    from vidgen_core.run import Run, Window
    from vidgen_core.sampling import Step

Stories = Mapping[str, tuple[str, ...]]
"""Name -> captions."""

PART = 24
"""Stories of one run: enough that loading the model does not count, few enough that little is made twice."""

ELSEWHERE = ("prompts_file", "video", "tuned", "trainer_defaults")
"""Keys of a run that may differ: the evaluation's folder may have been moved, and a model's advice is taken or not."""


@dataclass(frozen=True)
class Made:
    """One video of the comparison."""

    row: str
    story: str
    seed: int
    footage: Footage


@dataclass(frozen=True)
class Part:
    """Stories of one length that are made by one run."""

    row: Row
    seed: int
    number: int  # among the parts of one length, which keys the noise
    together: int  # stories that are denoised together
    stories: Stories
    folder: Path
    source: Path | None = None  # the clip that the stories are edits of

    @property
    def scenes(self) -> int:
        """Of every story."""
        return len(next(iter(self.stories.values())))

    @property
    def noise(self) -> int:
        """The seed of the run: the same for all rows, another for every part."""
        return self.seed * 100_000 + self.scenes * 1000 + self.number

    def video(self, story: str) -> Path:
        """Where the run writes a story's video."""
        return (self.folder if len(self.stories) == 1 else self.folder / story) / "video.mp4"


def read_stories(evaluation: Evaluation) -> dict[str, tuple[str, ...]]:
    """The stories of an experiment. Raises BadRequest where there is none."""
    stories: Stories = instantiate(evaluation.config["stories"])
    if not stories:
        raise BadRequest("The experiment has no story. Give n=1 or more.")
    return dict(stories)


def parts_of(evaluation: Evaluation, stories: Stories, folder: Path) -> list[Part]:
    """Every part of every row and seed, in the order in which they are made."""
    together = int(evaluation.config["batch_size"])
    size = -(-PART // together) * together
    seeds = evaluation.config["seeds"]
    found = []
    for row in evaluation.rows:
        for seed in seeds if isinstance(seeds, list) else [seeds]:
            for count in sorted({len(captions) for captions in stories.values()}):
                names = [name for name, captions in stories.items() if len(captions) == count]
                for number, start in enumerate(range(0, len(names), size)):
                    some = names[start : start + size]
                    place = folder / "videos" / row.name / f"seed_{seed}" / f"{some[0]}_to_{some[-1]}"
                    told = {name: stories[name] for name in some}
                    found.append(Part(row, seed, number, min(together, len(some)), told, place))
    return found


def command(part: Part, evaluation: Evaluation, folder: Path) -> Composed:
    """The run of a part. Raises BadRequest for a key that the user wrote and a row sets, as for any other mistake."""
    refuse_set(part.row.name, part.row.request, evaluation.request)
    prompts = folder / "prompts" / f"{part.folder.name}.json"
    if not prompts.is_file() or json.loads(prompts.read_text("utf-8")) != _plain(part.stories):
        prompts.parent.mkdir(parents=True, exist_ok=True)
        # Two commands may make different rows in one folder at the same time.
        unfinished = prompts.with_suffix(f".{os.getpid()}.part")
        unfinished.write_text(json.dumps(_plain(part.stories), indent=1, ensure_ascii=False), encoding="utf-8")
        unfinished.replace(prompts)
    started = (part.folder / "run.yaml").is_file()
    values = {
        "prompts_file": str(prompts),
        "seed": part.noise,
        "batch_size": part.together,
        "output.dir": str(part.folder),
        "output.contact_sheet": False,
        # Without a record the folder holds nothing that could go on: what is there goes.
        "output.overwrite": not started,
        "resume": started,
    }
    return compose([*part.row.request, *evaluation.request], values)


def refuse_set(name: str, ours: Sequence[str], theirs: Sequence[str]) -> None:
    """Raise BadRequest for an argument of the user whose key a command of the experiment sets."""
    keys = {argument.partition("=")[0] for argument in ours}
    for argument in theirs:
        if argument.partition("=")[0] in keys:
            raise BadRequest(f"{argument}: the rows of this experiment set that key. `{name}` says otherwise.")


def make(
    evaluation: Evaluation, parts: Sequence[Part], folder: Path, tell: Callable[[str], None] | None = None
) -> Iterator[Made]:
    """Make what is missing, and hand out every video of the parts.

    Raises:
        BadRequest: before anything is made, for what cannot be; VidgenError for a run that failed.
    """
    from vidgen_core import run

    tell = tell or say
    composed = {part.folder: command(part, evaluation, folder) for part in parts}
    weights = weights_of(composed)
    fresh = bool(evaluation.config["output"]["overwrite"])
    done = {p.folder for p in parts if _finished(p, composed[p.folder], weights[p.folder], fresh)}
    if done:
        tell(f"{sum(len(p.stories) for p in parts if p.folder in done)} videos are there already.")
    length = int(evaluation.config["scene_frames"])
    clock = _Clock(sum(p.scenes * len(p.stories) for p in parts if p.folder not in done) * length, tell)
    for part in parts:
        if part.folder not in done:
            clock.label = part.row.label
            run.generate(composed[part.folder], {"clock": clock})
        for name, captions in part.stories.items():
            # Every scene has ``scene_frames`` frames.
            spans = tuple(range(i * length, (i + 1) * length) for i in range(len(captions)))
            yield Made(part.row.name, name, part.seed, Footage(name, part.video(name), captions, spans, part.source))


def _finished(part: Part, composed: Composed, weights: Mapping[str, str], fresh: bool) -> bool:
    """Whether an earlier command made this very part; raises BadRequest as ``begun`` does."""
    if not begun(part.folder, composed, weights, fresh):
        return False
    return not (part.folder / "journal").is_dir() and all(part.video(name).is_file() for name in part.stories)


def begun(
    folder: Path, composed: Composed, weights: Mapping[str, str], fresh: bool, decisive: Sequence[str] = ()
) -> bool:
    """Whether an earlier command began this very run.

    Args:
        fresh: One of other settings or weights may be made again.
        decisive: Keys that must be the same although a run may be resumed with others.

    Raises BadRequest for one of other settings or weights, unless it may be made again: then it is cleared for that.
    """
    file = folder / "run.yaml"
    if not file.is_file():
        return False
    record = read_provenance(file)
    changed = [
        key for key in differences(record["config"], composed.config) if not set(key.split(".")) & set(ELSEWHERE)
    ]
    before, now = flatten(record["config"]), flatten(composed.config)
    changed += [key for key in decisive if before.get(key) != now.get(key)]
    # A model may be of more parts than its path tells, and a part have another name in its record.
    known = dict(record.get("weights") or {})
    if known and any(
        known.get(name, digest) != digest or digest not in known.values() for name, digest in weights.items()
    ):
        changed.append("weights")
    if changed:
        if fresh:
            file.unlink()
            composed.config["resume"] = False
            composed.config["output"]["overwrite"] = True
            return False
        raise BadRequest(
            f"The files in '{folder}' were made with other {', '.join(changed)}. Give another output.dir, or "
            "output.overwrite=true to make again what differs."
        )
    return True


def weights_of(runs: Mapping[Path, Composed]) -> dict[Path, dict[str, str]]:
    """The hashes of every run's weights, as its record has them; a missing model is told here, before anything is made.

    Files of one model are read once, however many runs it has.
    """
    read = cache(_hashes)
    models = {folder: composed.config["model"] for folder, composed in runs.items()}
    return {folder: read(model.get("path"), model.get("variant")) for folder, model in models.items()}


def _hashes(path: str | None, variant: str | None) -> dict[str, str]:
    if not path:
        return {}
    from vidgen_core.models.loading import file_hash, hashes, located, resolve

    file = located(path)
    return {file.name: file_hash(file)} if file.is_file() else hashes(resolve(path), variant)


def _plain(stories: Stories) -> dict[str, list[str]]:
    return {name: list(captions) for name, captions in stories.items()}


class _Clock:
    """An observer of all runs that tells, after every batch, how far the comparison is."""

    def __init__(self, frames: int, tell: Callable[[str], None]) -> None:
        self.label = ""
        self._frames, self._tell = frames, tell
        self._made = 0
        self._start = time.perf_counter()

    @hookimpl
    def on_step(self, run: Run, window: Window, step: Step) -> None:
        """The last step of a window is the end of its frames."""
        if step.index + 1 < step.total:
            return
        self._made += len(window.keep) * len(run.request.videos)
        if window.keep.stop == run.request.num_frames:
            seconds = (time.perf_counter() - self._start) / self._made * max(self._frames - self._made, 0)
            left = f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"
            self._tell(f"{self.label}: {self._made} of {self._frames} frames made, {left} left")


def say(line: str) -> None:
    """Tell the user how far it is."""
    print(line, file=sys.stderr, flush=True)
