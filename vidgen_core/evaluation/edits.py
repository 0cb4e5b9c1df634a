"""The videos of an experiment on edits: every row edits every clip, most of them by what was tuned on that very clip.

In place of stories there are ``clips``, and beside the rows ``tunings``: arguments of `vidgen train` by name. In these
and in the rows' requests ``{clip}`` stands for the file of a clip, ``{caption}`` for what it shows, and the name of a
tuning in braces for the folder of what it learnt from that clip. Each is tuned once, into ``tuned/<tuning>/<clip>``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidgen_core.errors import BadRequest
from vidgen_core.evaluation import comparison
from vidgen_core.evaluation.comparison import Made, Part, say
from vidgen_core.evaluation.config import Evaluation
from vidgen_core.evaluation.trainings import Training, asked, filled, rows_of, train_missing
from vidgen_core.instantiate import instantiate


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


def make(evaluation: Evaluation, folder: Path, tell: Callable[[str], None] = say) -> Iterator[Made]:
    """Tune what is missing, make what is missing, and hand out every video.

    Raises:
        BadRequest: before anything is tuned or made, for what cannot be; VidgenError for a run that failed.
    """
    clips = read_clips(evaluation, folder)
    rows = rows_of(evaluation)

    def made_of(tuning: Training) -> Iterable[Path]:
        return list(folder.glob(f"videos/*/*/{tuning.of}/run.yaml"))

    train_missing(evaluation, tunings_of(evaluation, clips, folder), "tunings", made_of, tell)
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


def tunings_of(evaluation: Evaluation, clips: Mapping[str, Clip], folder: Path) -> list[Training]:
    """Every tuning of every clip that a compared row asks for, in the order of clips."""
    tunings: Mapping[str, Sequence[str]] = evaluation.config.get("tunings") or {}
    return [
        Training(tuning, name, _filled(tunings[tuning], evaluation, name, clip, folder), _folder(folder, tuning, name))
        for name, clip in clips.items()
        for tuning in asked(evaluation, tunings)
    ]


def _filled(request: Sequence[str], evaluation: Evaluation, name: str, clip: Clip, folder: Path) -> tuple[str, ...]:
    learnt = {tuning: _folder(folder, tuning, name) for tuning in evaluation.config.get("tunings") or {}}
    return filled(request, {"clip": clip.path, "caption": clip.caption, **learnt})


def _folder(folder: Path, tuning: str, clip: str) -> Path:
    return folder / "tuned" / tuning / clip
