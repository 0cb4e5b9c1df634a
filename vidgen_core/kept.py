"""The few values made last of tensors, found again by the very tensor objects that they were made of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from torch import Tensor

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """What was made of tensors, so that it is made once.

    Args:
        limit: Values kept; the one not asked for the longest goes first.
    """

    def __init__(self, limit: int = 4) -> None:
        self._limit = limit
        # The tensors are kept too: another could come to lie where one has gone, and would have its id.
        self._made: OrderedDict[tuple[int, ...], tuple[Sequence[Tensor], Value]] = OrderedDict()

    def of(self, tensors: Sequence[Tensor], make: Callable[[], Value]) -> Value:
        """The value of these objects; they must not change in place."""
        key = tuple(map(id, tensors))
        if key not in self._made:
            self._made[key] = (tensors, make())
        self._made.move_to_end(key)
        while len(self._made) > self._limit:
            self._made.popitem(last=False)
        return self._made[key][1]

    def forget(self) -> None:
        """Keep nothing."""
        self._made.clear()
