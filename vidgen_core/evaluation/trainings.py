"""What an experiment trains before its rows make videos: arguments of `vidgen train` by name, each run once.

The experiment says of what there is one of each: of every clip (``edits.py``) or of every seed (``trained.py``). Words
in braces stand in the arguments, and in the rows' requests, for what differs from one to the next.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidgen_core.config import Composed, compose
from vidgen_core.evaluation.comparison import begun, refuse_set, weights_of
from vidgen_core.evaluation.config import Evaluation

TRAINING = ("trainer", "objective", "data")
SHARED = ("model", "placement", "attention")
"""First parts of the keys that go to the trainings alone, and to the trainings and the rows; all others go to the
rows."""

DECISIVE = tuple(f"trainer.{key}" for key in ("batch_size", "accumulation", "mixed_precision", "export"))
"""Keys that may differ when a training is resumed, and yet make another result."""


@dataclass(frozen=True)
class Training:
    """One training by the ordinary command.

    Attributes:
        name: Among those of the experiment.
        of: Which one of that name: the clip, or the seed.
        request: Its arguments.
        folder: Where it is kept.
    """

    name: str
    of: str
    request: tuple[str, ...]
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether its result is there, which a training writes last and whole."""
        return (self.folder / "methods").is_dir() or (self.folder / "model").is_dir()


def rows_of(evaluation: Evaluation) -> Evaluation:
    """The evaluation with what the user wrote for the rows alone.

    Raises BadRequest for mistakes in it, which are told before the first training: the rows are composed without what
    is not yet there.
    """
    rows = replace(evaluation, request=_sent(evaluation.request, lambda key: key not in TRAINING))
    for row in rows.rows:
        refuse_set(row.name, row.request, rows.request)
        compose([argument for argument in row.request if not argument.startswith("tuned=")] + list(rows.request))
    return rows


def asked(evaluation: Evaluation, names: Iterable[str]) -> list[str]:
    """Those of the trainings that a compared row uses."""
    used = "\n".join(argument for row in evaluation.rows for argument in row.request)
    return [name for name in names if f"{{{name}}}" in used]


def filled(request: Sequence[str], words: Mapping[str, object]) -> tuple[str, ...]:
    """The arguments with the words in braces replaced."""
    found = []
    for argument in map(str, request):
        for word, meaning in words.items():
            argument = argument.replace(f"{{{word}}}", str(meaning))
        found.append(argument)
    return tuple(found)


def train_missing(
    evaluation: Evaluation,
    trainings: Sequence[Training],
    called: str,
    made_of: Callable[[Training], Iterable[Path]],
    tell: Callable[[str], None],
) -> None:
    """Train what is not trained yet; one that was interrupted goes on.

    Args:
        called: What the trainings are called, for messages.
        made_of: The records of the videos that were made of a training, which go with it.

    Raises BadRequest for one of other settings, unless it may be made again.
    """
    request = _sent(evaluation.request, lambda key: key in (*TRAINING, *SHARED))
    composed = {training.folder: command(training, request) for training in trainings}
    fresh = bool(evaluation.config["output"]["overwrite"])
    weights = weights_of(composed)
    missing = [
        training
        for training in trainings
        if not begun(training.folder, composed[training.folder], weights[training.folder], fresh, DECISIVE)
        or not training.finished
    ]
    if trainings:
        tell(f"{len(trainings) - len(missing)} of {len(trainings)} {called} are there already.")
    start = time.perf_counter()
    for done, training in enumerate(missing, 1):
        from vidgen_core.train import train

        if not composed[training.folder].config["resume"]:
            for record in made_of(training):
                record.unlink()
        train(composed[training.folder])
        minutes = (time.perf_counter() - start) / done * (len(missing) - done) / 60
        tell(f"{training.name}, {training.of}: {done} of {len(missing)} {called} done, {minutes:.0f} min left")


def command(training: Training, request: Sequence[str]) -> Composed:
    """The run of a training. Raises BadRequest for a key that the user wrote and the training sets, and the like."""
    refuse_set(training.name, training.request, request)
    started = (training.folder / "run.yaml").is_file()
    values = {"output.dir": str(training.folder), "output.overwrite": not started, "resume": started}
    return compose([*training.request, *request], values, entry="train")


def _sent(request: Sequence[str], wanted: Callable[[str], bool]) -> tuple[str, ...]:
    """The user's arguments whose key's first part is wanted."""
    return tuple(argument for argument in request if wanted(argument.partition("=")[0].partition(".")[0]))
