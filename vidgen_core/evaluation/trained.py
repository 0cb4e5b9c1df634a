"""The videos of an experiment whose rows are trained models: every row tells every story, by what it learnt.

Beside the rows there are ``trainings``: arguments of `vidgen train` by name; ``training`` are those that all share. In
these and in the rows' requests ``{seed}`` stands for one of ``seeds``, and in the requests the name of a training in
braces for the folder of what it learnt with the seed. Each is run once for every seed, into
``trained/<training>/seed_<seed>``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vidgen_core.evaluation import comparison
from vidgen_core.evaluation.comparison import Made, Part, say
from vidgen_core.evaluation.config import Evaluation
from vidgen_core.evaluation.trainings import Training, asked, filled, rows_of, train_missing


def make(evaluation: Evaluation, folder: Path, tell: Callable[[str], None] = say) -> Iterator[Made]:
    """Train what is missing, make what is missing, and hand out every video.

    Raises:
        BadRequest: before anything is trained or made, for what cannot be; VidgenError for a run that failed.
    """
    rows = rows_of(evaluation)
    stories = comparison.read_stories(rows)

    def made_of(training: Training) -> Iterable[Path]:
        users = [row.name for row in rows.rows if f"{{{training.name}}}" in "\n".join(row.request)]
        return [record for row in users for record in folder.glob(f"videos/{row}/{training.of}/**/run.yaml")]

    train_missing(evaluation, trainings_of(evaluation, folder), "trainings", made_of, tell)
    parts = [_of_its_seed(part, evaluation, folder) for part in comparison.parts_of(rows, stories, folder)]
    return comparison.make(rows, parts, folder, tell)


def trainings_of(evaluation: Evaluation, folder: Path) -> list[Training]:
    """Every training that a compared row asks for, seed by seed."""
    trainings: Mapping[str, Sequence[str]] = evaluation.config["trainings"]
    common: Sequence[str] = evaluation.config.get("training") or []
    seeds = evaluation.config["seeds"]
    return [
        Training(name, f"seed_{seed}", filled([*common, *trainings[name]], {"seed": seed}), _folder(folder, name, seed))
        for seed in (seeds if isinstance(seeds, list) else [seeds])
        for name in asked(evaluation, trainings)
    ]


def _of_its_seed(part: Part, evaluation: Evaluation, folder: Path) -> Part:
    learnt = {name: _folder(folder, name, part.seed) for name in evaluation.config["trainings"]}
    return replace(part, row=replace(part.row, request=filled(part.row.request, {"seed": part.seed, **learnt})))


def _folder(folder: Path, name: str, seed: int) -> Path:
    return folder / "trained" / name / f"seed_{seed}"
