"""Edit cases as an experiment takes them: a folder of clips to which others are added, and which is never changed."""

from __future__ import annotations

import json
from pathlib import Path

from vidgen_core.errors import BadRequest
from vidgen_core.evaluation.edits import Clip
from vidgen_moving_shapes.edits import draw_crossings, draw_edits, write_cases


def edit_clips(
    folder: str, n: int, edits_per_clip: int = 3, seed: int = 0, frames: int = 16, crossings: bool = False
) -> dict[str, Clip]:
    """The clips of ``draw_edits``, or of ``draw_crossings``, written to a folder with their depth where they are new.

    Raises BadRequest for a folder that holds other clips of these names.
    """
    cases = (draw_crossings if crossings else draw_edits)(n, edits_per_clip, seed, frames)
    told = Path(folder) / "cases.json"
    known = json.loads(told.read_text("utf-8")) if told.is_file() else {}
    for case in cases:
        if known.get(case.name, case.record()) != case.record():
            raise BadRequest(
                f"'{folder}' holds another clip '{case.name}', of another seed, length or number of edits. Give "
                "another output.dir."
            )
    if any(case.name not in known for case in cases):
        write_cases(cases, Path(folder))
    return {case.name: Clip(Path(folder) / f"{case.name}.mp4", case.caption, case.captions) for case in cases}
