"""vidgen matrix    Every pair of methods, in both orders, run on a tiny model or refused: the table, then the reasons.

vidgen matrix <method>    The pairs of one method; of several, the pairs among them. plugin=<file.py> brings its method.

Triples whose pairs all run are tried too. A pair that runs needs both: without either the video is another. Exit code
1 where a pair fails, is refused too late, or leaves one method without effect.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vidgen_core.errors import BadRequest
from vidgen_core.matrix import FAULTY, REFUSED, Matrix, table
from vidgen_core.overrides import FILES, parse
from vidgen_core.plugin import discover
from vidgen_core.unpackaged import files_of, joined, of_file


def main(arguments: Sequence[str]) -> int:
    """Try them one by one, telling each as it is done; print the table."""
    files = [argument for argument in arguments if argument.startswith(f"{FILES}=")]
    names = [argument for argument in arguments if argument not in (*files, "debug=true")]
    wrong = next((name for name in names if "=" in name), None)
    if wrong:
        raise BadRequest(f"`vidgen matrix` has no key '{wrong.partition('=')[0]}'. Give names of methods, or {FILES}=.")
    brought = [of_file(path) for path in files_of(map(parse, files))]
    matrix = Matrix(joined(discover(), brought), names)
    verdicts = []
    for verdict in matrix.verdicts():
        verdicts.append(verdict)
        print(f"method={verdict.written} {verdict.outcome}", file=sys.stderr, flush=True)
    if not verdicts:
        raise BadRequest("There are no two methods to combine: `vidgen list` names those that are installed.")
    print(table(verdicts))
    refusals = {frozenset(verdict.methods): verdict.told for verdict in verdicts if verdict.outcome == REFUSED}
    for told in refusals.values():
        print(f"\nrefused: {told}")
    faults = [verdict for verdict in verdicts if verdict.outcome == FAULTY]
    for verdict in faults:
        print(f"\nFAULTY: method={verdict.written}: {verdict.told}")
    return 1 if faults else 0
