"""vidgen doctor    What vidgen stands on, tried: packages, devices, attention, video, room, weights, plugins.

Each finding that is not ok comes with a mend. `wrong` stops the ordinary work and makes the exit code 1; `note` costs
speed or an option only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from vidgen_core.environment import WRONG, Finding, checks
from vidgen_core.errors import BadRequest


def main(arguments: Sequence[str]) -> int:
    """Print the findings of every check."""
    if [argument for argument in arguments if argument != "debug=true"]:
        raise BadRequest("`vidgen doctor` takes no arguments.")
    return told(checks())


def told(checks: Mapping[str, Callable[[], Iterable[Finding]]]) -> int:
    """Print the findings as they come; returns the exit code."""
    wrong = 0
    for title, check in checks.items():
        print(title)
        for finding in _found(check):
            wrong += finding.state == WRONG
            print(
                f"  {finding.state:<5}  {finding.what}" + f"\n         {finding.mend}" * bool(finding.mend), flush=True
            )
    print(f"{wrong} {'thing is' if wrong == 1 else 'things are'} wrong; see above." if wrong else "Nothing is wrong.")
    return 1 if wrong else 0


def _found(check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # what is so broken that it cannot be looked at, is a finding too
        yield Finding(WRONG, f"cannot be checked: {type(error).__name__}: {error}", "mend what is wrong above first")
