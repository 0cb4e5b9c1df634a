"""vidgen [generate] key=value ...    Make a video; the last lines name the files."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vidgen_core.config import Composed, compose


def main(arguments: Sequence[str]) -> int:
    """Compose the request and run it with a progress display."""
    return run(compose(arguments))


def run(composed: Composed) -> int:
    """Run a composed request as the command line does."""
    for note in composed.notes:
        print(note, file=sys.stderr)
    composed.request.validate(size_multiple=1)  # before torch is imported
    from vidgen_core.progress import Progress
    from vidgen_core.run import generate

    with Progress() as progress:
        files = generate(composed, {"progress": progress})
    for file in files:
        print(file)
    return 0
