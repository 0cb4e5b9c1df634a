"""The videos of an experiment on edits: every row edits every clip, most of them by what was tuned on that very clip.

In place of stories there are ``clips``, and beside the rows ``tunings``: arguments of `vidgen train` by name. In these
and in the rows' requests ``{clip}`` stands for the file of a clip, ``{caption}`` for what it shows, and the name of a
tuning in braces for the folder of what it learnt from that clip. Each is tuned once, into ``tuned/<tuning>/<clip>``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidgen_core.config import Composed, compose
from vidgen_core.errors import BadRequest
from vidgen_core.evaluation import comparison
from vidgen_core.evaluation.comparison import Made, Part, begun, refuse_set, say, weights_of
from vidgen_core.evaluation.config import Evaluation
from vidgen_core.instantiate import instantiate

TRAINING = ("trainer", "objective", "data")
SHARED = ("model", "placement", "attention")
"""First parts of the keys that go to the tunings alone, and to the tunings and the rows; all others go to the rows."""

DECISIVE = tuple(f"trainer.{key}" for key in ("batch_size", "accumulation", "mixed_precision", "export"))
"""Keys that may differ when a tuning is resumed, and yet make another result."""


@dataclass(frozen=True)
class Clip:
    """A source clip.

    Attributes:
        path: Of its file.
        caption: What it shows.
        edits: Name -> edited prompt.
    """

    path: Path
    caption: str
    edits: Mapping[str, str]


@dataclass(frozen=True)
class Tuning:
    """One clip's training by the ordinary command."""

    name: str
    clip: str
    request: tuple[str, ...]
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether its result is there, which a training writes last and whole."""
        return (self.folder / "methods").is_dir() or (self.folder / "model").is_dir()


def make(evaluation: Evaluation, folder: Path, tell: Callable[[str], None] = say) -> Iterator[Made]:
    """Tune what is missing, make what is missing, and hand out every video.

    Raises:
        BadRequest: before anything is tuned or made, for what cannot be; VidgenError for a run that failed.
    """
    clips = read_clips(evaluation, folder)
    rows = replace(evaluation, request=_sent(evaluation.request, lambda key: key not in TRAINING))
    for row in rows.rows:  # mistakes are told before the first tuning: composed without what is not yet there
        refuse_set(row.name, row.request, rows.request)
        compose([argument for argument in row.request if not argument.startswith("tuned=")] + list(rows.request))
    tune(evaluation, tunings_of(evaluation, clips, folder), folder, tell)
    return comparison.make(rows, parts_of(rows, clips, folder), folder, tell)


def read_clips(evaluation: Evaluation, folder: Path) -> dict[str, Clip]:
    """The clips of an experiment by name, written to ``clips`` in its folder.

    Raises BadRequest where there is none, or where others are there already.
    """
    clips: Mapping[str, Clip] = instantiate({**evaluation.config["clips"], "folder": str(folder / "clips")})
    if not clips:
        raise BadRequest("The experiment has no clip. Give n=1 or more.")
    return dict(clips)


def parts_of(evaluation: Evaluation, clips: Mapping[str, Clip], folder: Path) -> list[Part]:
    """Every clip of every row and seed; all edits of a clip are one run, and so start from the same inverted noise."""
    seeds = evaluation.config["seeds"]
    found = []
    for row in evaluation.rows:
        for seed in seeds if isinstance(seeds, list) else [seeds]:
            for number, (name, clip) in enumerate(clips.items()):
                told = {f"{name}_{edit}": (caption,) for edit, caption in clip.edits.items()}
                together = min(int(evaluation.config["batch_size"]), len(told))
                place = folder / "videos" / row.name / f"seed_{seed}" / name
                filled = replace(row, request=_filled(row.request, evaluation, name, clip, folder))
                found.append(Part(filled, seed, number, together, told, place, clip.path))
    return found


def tunings_of(evaluation: Evaluation, clips: Mapping[str, Clip], folder: Path) -> list[Tuning]:
    """Every tuning of every clip that a compared row asks for, in the order of clips."""
    tunings: Mapping[str, Sequence[str]] = evaluation.config.get("tunings") or {}
    asked = "\n".join(argument for row in evaluation.rows for argument in row.request)
    return [
        Tuning(tuning, name, _filled(request, evaluation, name, clip, folder), folder / "tuned" / tuning / name)
        for name, clip in clips.items()
        for tuning, request in tunings.items()
        if f"{{{tuning}}}" in asked
    ]


def tune(evaluation: Evaluation, tunings: Sequence[Tuning], folder: Path, tell: Callable[[str], None]) -> None:
    """Train what is not trained yet; one that was interrupted goes on.

    Raises BadRequest for one of other settings, unless it may be made again: with it go the clip's videos.
    """
    request = _sent(evaluation.request, lambda key: key in (*TRAINING, *SHARED))
    composed = {tuning.folder: command(tuning, request) for tuning in tunings}
    fresh = bool(evaluation.config["output"]["overwrite"])
    weights = {tuning.name: weights_of(composed[tuning.folder]) for tuning in tunings}
    missing = [
        tuning
        for tuning in tunings
        if not begun(tuning.folder, composed[tuning.folder], weights[tuning.name], fresh, DECISIVE)
        or not tuning.finished
    ]
    if tunings:
        tell(f"{len(tunings) - len(missing)} of {len(tunings)} tunings are there already.")
    start = time.perf_counter()
    for done, tuning in enumerate(missing, 1):
        from vidgen_core.train import train

        if not composed[tuning.folder].config["resume"]:
            for record in folder.glob(f"videos/*/*/{tuning.clip}/run.yaml"):
                record.unlink()
        train(composed[tuning.folder])
        minutes = (time.perf_counter() - start) / done * (len(missing) - done) / 60
        tell(f"{tuning.name}, {tuning.clip}: {done} of {len(missing)} tuned, {minutes:.0f} min left")


def command(tuning: Tuning, request: Sequence[str]) -> Composed:
    """The training of a tuning. Raises BadRequest for a key that the user wrote and the tuning sets, and the like."""
    refuse_set(tuning.name, tuning.request, request)
    started = (tuning.folder / "run.yaml").is_file()
    values = {"output.dir": str(tuning.folder), "output.overwrite": not started, "resume": started}
    return compose([*tuning.request, *request], values, entry="train")


def _filled(request: Sequence[str], evaluation: Evaluation, name: str, clip: Clip, folder: Path) -> tuple[str, ...]:
    known = {"clip": str(clip.path), "caption": clip.caption}
    known |= {tuning: str(folder / "tuned" / tuning / name) for tuning in evaluation.config.get("tunings") or {}}
    filled = []
    for argument in map(str, request):
        for word, meaning in known.items():
            argument = argument.replace(f"{{{word}}}", meaning)
        filled.append(argument)
    return tuple(filled)


def _sent(request: Sequence[str], wanted: Callable[[str], bool]) -> tuple[str, ...]:
    """The user's arguments whose key's first part is wanted."""
    return tuple(argument for argument in request if wanted(argument.partition("=")[0].partition(".")[0]))
