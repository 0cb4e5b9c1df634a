"""Whether methods go together: every pair is run on a tiny model in both orders, or is refused before weights load.

A pair that runs must need both: leaving either out changes the video. Triples are tried where all their pairs run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from itertools import combinations, permutations
from typing import TYPE_CHECKING

from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.plugin import Found, method_plugin
from vidgen_core.trial import composed_trial, trains_only, trial_keys, video_of

if TYPE_CHECKING:
    from torch import Tensor

RUNS, REFUSED, FAULTY = "runs", "refused", "faulty"


@dataclass(frozen=True)
class Verdict:
    """What came of a list of methods."""

    methods: tuple[str, ...]  # in the order of method=[...]
    outcome: str  # RUNS, REFUSED or FAULTY
    over: str = ""  # of a refusal: the hook in conflict, `model` or `excluded`
    told: str = ""  # the refusal or the fault, one paragraph

    @property
    def written(self) -> str:
        """The list as a user writes it."""
        return f"[{','.join(self.methods)}]"

    @property
    def word(self) -> str:
        """The outcome in the table."""
        return {RUNS: RUNS, REFUSED: f"`{self.over}`", FAULTY: "FAULTY"}[self.outcome]


class Matrix:
    """The trials of methods with each other; every run that two of them need is made once.

    Args:
        found: Installed plugins, and files beside them.
        names: The methods; one stands for its pairs with all others, none for all.

    Raises:
        BadRequest: a name that is no working method.
    """

    def __init__(self, found: Mapping[str, Found], names: Sequence[str] = ()) -> None:
        self.found = dict(found)
        working = [n for n, f in found.items() if f.plugin is not None and f.plugin.is_method]
        names = list(dict.fromkeys(names))
        self.names = sorted(names if len(names) > 1 else working)
        self.centre = names[0] if len(names) == 1 else None
        self.cards = {name: method_plugin(name, self.found) for name in {*self.names, *names}}
        self._verdicts: dict[tuple[str, ...], Verdict] = {}
        self._videos: dict[str, Tensor] = {}

    @cached_property
    def pairs(self) -> list[tuple[str, ...]]:
        """Every two methods, in both orders."""
        return [pair for pair in permutations(self.names, 2) if self.centre in (None, *pair)]

    def triples(self) -> Iterator[tuple[str, ...]]:
        """Every three methods whose pairs all run, in each order."""
        run = {pair for pair in self.pairs if self.tried(pair).outcome == RUNS}
        for three in combinations(self.names, 3):
            if all(pair in run for pair in permutations(three, 2)):
                yield from permutations(three)

    def verdicts(self) -> Iterator[Verdict]:
        """Every pair, then every triple, as each is tried."""
        yield from map(self.tried, self.pairs)
        yield from map(self.tried, self.triples())

    def tried(self, methods: tuple[str, ...]) -> Verdict:
        """What comes of these methods together."""
        if methods not in self._verdicts:
            with redirect_stderr(StringIO()):  # what runs tell of themselves is not asked for here
                self._verdicts[methods] = self._try(methods)
        return self._verdicts[methods]

    def _try(self, methods: tuple[str, ...]) -> Verdict:
        loaded: list[str] = []
        try:
            together = self._video(methods, methods, lambda: loaded.append("weights"))
        except BadRequest as conflict:
            if not loaded and sum(f"'{name}'" in str(conflict) for name in methods) > 1:
                return Verdict(methods, REFUSED, getattr(conflict, "over", "request"), str(conflict))
            late = "This is told only when weights are loaded: hooks must say so by `claims`, or a card by `excludes`."
            return Verdict(methods, FAULTY, told=f"{conflict} {late}")
        except (Exception, SystemExit) as error:  # a method may fail in any way
            return Verdict(methods, FAULTY, told=f"{type(error).__name__}: {error}")
        for name in methods:
            if self._idle(name, methods, together):
                others = " and ".join(f"'{other}'" for other in methods if other != name)
                told = f"'{name}' changes nothing beside {others}."
                if self._idle_alone(name):
                    told += " Nor alone: its card's `trial` must give the keys with which it does something."
                return Verdict(methods, FAULTY, told=told)
        return Verdict(methods, RUNS)

    def _idle(self, name: str, methods: tuple[str, ...], together: Tensor) -> bool:
        """Whether the video is the same without one of its methods, where that is for more than training."""
        import torch

        try:
            without = self._video(tuple(other for other in methods if other != name), methods)
        except VidgenError:  # the others cannot do without it, such as an image model that reads depth
            return False
        same = without.shape == together.shape and torch.allclose(without, together, atol=1e-4)
        return same and not trains_only(self.found, name, self.cards[name])

    def _idle_alone(self, name: str) -> bool:
        try:
            return self._idle(name, (name,), self._video((name,), (name,)))
        except Exception:  # that it fails alone is not what is looked for here
            return False

    def _video(
        self, methods: tuple[str, ...], among: tuple[str, ...], before_weights: Callable[[], None] = lambda: None
    ) -> Tensor:
        """The frames that methods make with the model and the sizes that suit a whole list of them."""
        keys = trial_keys({name: self.cards[name] for name in methods}, {name: self.cards[name] for name in among})
        key = repr((methods, sorted(keys.items())))
        if key not in self._videos:
            self._videos[key] = video_of(composed_trial(self.found, methods, keys), before_weights)
        return self._videos[key]


def table(verdicts: Collection[Verdict]) -> str:
    """The verdicts in Markdown: a row for the method that comes first, a column for the second, a line for a triple; of
    one method with all others, a row for each of them."""
    pairs = {verdict.methods: verdict.word for verdict in verdicts if len(verdict.methods) == 2}
    names = sorted({name for pair in pairs for name in pair})
    centre = [name for name in names if all(name in pair for pair in pairs)]
    if len(centre) == 1:
        (one,) = centre
        lines = [f"| | `{one}`, then it | it, then `{one}` |", "| --- | --- | --- |"]
        lines += [f"| `{name}` | {pairs[one, name]} | {pairs[name, one]} |" for name in names if name != one]
        return "\n".join(lines + _triples(verdicts))
    lines = ["| first, then | " + " | ".join(f"`{name}`" for name in names) + " |", "| --- " * (len(names) + 1) + "|"]
    lines += [f"| `{a}` | " + " | ".join(pairs.get((a, b), "") for b in names) + " |" for a in names]
    return "\n".join(lines + _triples(verdicts))


def _triples(verdicts: Collection[Verdict]) -> list[str]:
    triples: dict[tuple[str, ...], dict[str, int]] = {}
    for verdict in verdicts:
        if len(verdict.methods) == 3:
            words = triples.setdefault(tuple(sorted(verdict.methods)), {})
            words[verdict.word] = words.get(verdict.word, 0) + 1
    lines = [""] if triples else []
    for three, words in triples.items():
        told = ", ".join(f"{word} in {count} of its {sum(words.values())} orders" for word, count in words.items())
        lines.append(f"`[{','.join(three)}]` {told if len(words) > 1 else f'{next(iter(words))} in every order'}")
    return lines
