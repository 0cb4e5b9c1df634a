"""The published prompt sets: three files of a hundred stories of four scenes each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidgen_core.errors import BadRequest, nearest
from vidgen_core.prompts import read_prompts_file

SETS = ("single_character_multiple_context", "different_characters_same_context", "captions_from_real_videos")
"""Names of the files, without ``.json``: name of a story -> its captions."""


def stories(prompts: str | None, n: int, sets: Sequence[str] = SETS) -> dict[str, tuple[str, ...]]:
    """Name -> captions: the first ``n`` stories of each set.

    Args:
        prompts: The folder of the three files, as the authors publish them.

    Raises BadRequest for a folder, a file or a set that is not there.
    """
    if not prompts:
        raise BadRequest(
            f"The benchmark needs the published prompts: prompts=<folder> with {', '.join(f'{s}.json' for s in SETS)} "
            "(from the authors' repository, github.com/Hritikbansal/talc)."
        )
    folder = Path(prompts).expanduser()
    if not folder.is_dir():
        raise BadRequest(f"prompts={prompts}: there is no such folder.")
    found = {}
    for name in [sets] if isinstance(sets, str) else sets:
        if name not in SETS:
            raise BadRequest(f"sets={name}: there is no such set.{nearest(str(name), SETS)}")
        file = folder / f"{name}.json"
        if not file.is_file():
            raise BadRequest(f"prompts={prompts} holds no '{file.name}'. Leave that set out with sets=[...].")
        for number, captions in enumerate(list(read_prompts_file(file).values())[:n]):
            found[f"{name}_{number:03d}"] = captions
    return found
