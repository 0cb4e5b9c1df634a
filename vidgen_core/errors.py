"""The two ways a command can go wrong, each one paragraph that names the mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VidgenError(Exception):
    """A run failed for a reason we can name (exit code 1). ``str(error)`` is one paragraph."""

    exit_code = 1


class BadRequest(VidgenError):
    """What was asked cannot be done (exit code 2): found before any weight is loaded wherever possible."""

    exit_code = 2


class Conflict(BadRequest):
    """Two methods that cannot run together.

    Args:
        message: One paragraph that names both and the mend.
        over: What both would have: the name of a hook, ``model`` where no model suits both, or ``excluded`` where the
            card of one names the other.
    """

    def __init__(self, message: str, over: str) -> None:
        super().__init__(message)
        self.over = over


class Unusable(ValueError):
    """Why a plugin cannot be used, and the mend: the part of a sentence that follows its name."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """`` Did you mean 'x'?`` for the valid name closest to ``name``, or the sorted list when none is close."""
    names = sorted(set(valid))
    # A beginning of one name says more than letters shared with another.
    begun = [candidate for candidate in names if name and candidate.lower().startswith(name.lower())]
    close = begun[:1] or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" There are: {', '.join(names)}." if names else ""
