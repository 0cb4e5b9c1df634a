"""The videos of an experiment: every row makes every story, with the same noise, by the ordinary command.

Stories of one length are denoised together. Each such batch is a run with a folder of its own below ``videos/``, so a
command that was interrupted goes on where it was, and one with a larger ``n`` makes only what is new.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidgen_core.config import Composed, compose
from vidgen_core.errors import BadRequest
from vidgen_core.evaluation.config import Evaluation, Row
from vidgen_core.instantiate import instantiate
from vidgen_core.metrics.footage import Footage
from vidgen_core.provenance import read_provenance
from vidgen_core.run_folder import differences

Stories = Mapping[str, tuple[str, ...]]
"""Name -> captions."""

ELSEWHERE = ("prompts_file",)
"""Keys of a run that may differ from when it was made: the evaluation's folder may have been moved."""


@dataclass(frozen=True)
class Made:
    """One video of the comparison."""

    row: str
    story: str
    seed: int
    footage: Footage


@dataclass(frozen=True)
class Batch:
    """Stories of one length that are made by one run."""

    row: Row
    seed: int
    number: int  # among the batches of one length, which keys the noise
    stories: Stories
    folder: Path

    @property
    def scenes(self) -> int:
        """Of every story."""
        return len(next(iter(self.stories.values())))

    @property
    def noise(self) -> int:
        """The seed of the run: the same for all rows, another for every batch."""
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


def batches_of(evaluation: Evaluation, stories: Stories, folder: Path) -> list[Batch]:
    """Every batch of every row and seed, in the order in which they are made."""
    size = int(evaluation.config["batch_size"])
    seeds = evaluation.config["seeds"]
    found = []
    for row in evaluation.rows:
        for seed in seeds if isinstance(seeds, list) else [seeds]:
            for count in sorted({len(captions) for captions in stories.values()}):
                names = [name for name, captions in stories.items() if len(captions) == count]
                for number, start in enumerate(range(0, len(names), size)):
                    part = names[start : start + size]
                    place = folder / "videos" / row.name / f"seed_{seed}" / f"{part[0]}_to_{part[-1]}"
                    found.append(Batch(row, seed, number, {name: stories[name] for name in part}, place))
    return found


def command(batch: Batch, evaluation: Evaluation, folder: Path) -> Composed:
    """The run of a batch. Raises BadRequest for a key that the user wrote and a row sets, as for any other mistake."""
    ours = {argument.partition("=")[0] for argument in batch.row.request}
    for argument in evaluation.request:
        if argument.partition("=")[0] in ours:
            raise BadRequest(
                f"{argument}: the rows of this experiment set that key. `{batch.row.name}` says otherwise."
            )
    prompts = folder / "prompts" / f"{batch.folder.name}.json"
    if not prompts.is_file() or json.loads(prompts.read_text("utf-8")) != _plain(batch.stories):
        prompts.parent.mkdir(parents=True, exist_ok=True)
        part = prompts.with_suffix(".part")
        part.write_text(json.dumps(_plain(batch.stories), indent=1, ensure_ascii=False), encoding="utf-8")
        part.replace(prompts)
    started = (batch.folder / "run.yaml").is_file()
    values = {
        "prompts_file": str(prompts),
        "seed": batch.noise,
        "batch_size": len(batch.stories),
        "output.dir": str(batch.folder),
        "output.contact_sheet": False,
        # Without a record the folder holds nothing that could go on: what is there goes.
        "output.overwrite": not started,
        "resume": started,
    }
    return compose([*batch.row.request, *evaluation.request], values)


def make(
    evaluation: Evaluation, stories: Stories, folder: Path, tell: Callable[[str], None] | None = None
) -> Iterator[Made]:
    """Make what is missing, and hand out every video of the comparison.

    Raises:
        BadRequest: before anything is made, for what cannot be; VidgenError for a run that failed.
    """
    from vidgen_core import run

    tell = tell or _print
    batches = batches_of(evaluation, stories, folder)
    composed = {batch.folder: command(batch, evaluation, folder) for batch in batches}
    weights = {batch.row.name: _weights(composed[batch.folder]) for batch in batches}
    fresh = bool(evaluation.config["output"]["overwrite"])
    done = {b.folder for b in batches if _finished(b, composed[b.folder], weights[b.row.name], fresh)}
    frames = {b.folder: b.scenes * len(b.stories) for b in batches}
    left = sum(count for place, count in frames.items() if place not in done)
    if done:
        tell(f"{sum(len(b.stories) for b in batches if b.folder in done)} videos are there already.")
    start, made = time.perf_counter(), 0
    for batch in batches:
        if batch.folder not in done:
            run.generate(composed[batch.folder])
            made += frames[batch.folder]
            rest = (time.perf_counter() - start) / made * (left - made)
            tell(f"{batch.row.label}: {batch.folder.name} of seed {batch.seed} made; {_minutes(rest)} left")
        for name, captions in batch.stories.items():
            yield Made(batch.row.name, name, batch.seed, footage(name, batch.video(name), captions, evaluation))


def footage(name: str, path: Path, captions: tuple[str, ...], evaluation: Evaluation) -> Footage:
    """A video of an experiment, whose scenes all have ``scene_frames`` frames."""
    length = int(evaluation.config["scene_frames"])
    return Footage(name, path, captions, tuple(range(i * length, (i + 1) * length) for i in range(len(captions))))


def _finished(batch: Batch, composed: Composed, weights: Mapping[str, str], fresh: bool) -> bool:
    """Whether an earlier command made this very batch.

    Raises BadRequest for one that was made otherwise, unless it may be made again: then it is cleared for that.
    """
    file = batch.folder / "run.yaml"
    if not file.is_file():
        return False
    record = read_provenance(file)
    changed = [key for key in differences(record["config"], composed.config) if key not in ELSEWHERE]
    if record.get("weights") and dict(record["weights"]) != dict(weights) and weights:
        changed.append("weights")
    if changed:
        if fresh:
            file.unlink()
            composed.config["resume"] = False
            composed.config["output"]["overwrite"] = True
            return False
        raise BadRequest(
            f"The videos in '{batch.folder}' were made with other {', '.join(changed)}. Give another output.dir, or "
            "output.overwrite=true to make again what differs."
        )
    return not (batch.folder / "journal").is_dir() and all(batch.video(name).is_file() for name in batch.stories)


def _weights(composed: Composed) -> dict[str, str]:
    """The hashes of a row's weights; a missing model is told here, before any other row is made."""
    path = composed.config["model"].get("path")
    if not path:
        return {}
    from vidgen_core.models.loading import hashes, resolve

    return hashes(resolve(path))


def _plain(stories: Stories) -> dict[str, list[str]]:
    return {name: list(captions) for name, captions in stories.items()}


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{seconds:.0f} s"


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def arguments_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Row -> its command, for the report."""
    return {row.name: list(row.request) for row in rows}
