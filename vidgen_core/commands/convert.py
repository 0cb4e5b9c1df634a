"""vidgen convert weights=<file> output.dir=<folder>    A published checkpoint as safetensors that a method reads.

Which plugin knows the layout shows in the names of the tensors. Every tensor is written, or named as left out; memory
holds no copy of them, however large the file. The last lines say how the files are used, and name them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vidgen_core.errors import BadRequest, nearest
from vidgen_core.overrides import parse

KEYS = ("weights", "output.dir", "debug")


def main(arguments: Sequence[str]) -> int:
    """Read the arguments, convert, and say what was written."""
    given: dict[str, str] = {}
    for argument in arguments:
        if "=" not in argument:
            raise BadRequest(f"'{argument}' is not key=value. Write: vidgen convert weights={argument} output.dir=...")
        override = parse(argument)
        if override.key not in KEYS:
            raise BadRequest(f"`vidgen convert` has no key '{override.key}'.{nearest(override.key, KEYS)}")
        if override.key in given:
            raise BadRequest(f"{override.key}= was written twice. Write it once.")
        given[override.key] = override.value
    if not given.get("weights") or not given.get("output.dir"):
        raise BadRequest("Say what to convert and where to: vidgen convert weights=<file> output.dir=<folder>.")
    from vidgen_core.convert import convert
    from vidgen_core.models.loading import located

    for line in convert(located(given["weights"]), Path(given["output.dir"]).expanduser()):
        print(line)
    return 0
