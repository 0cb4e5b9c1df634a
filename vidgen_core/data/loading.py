"""Batches of a source, read ahead by worker processes, in the order of the draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from torch.utils.data import DataLoader, Dataset

if TYPE_CHECKING:
    from vidgen_core.data.sample import Batch, Draw, Source


class _Drawn(Dataset["Batch"]):
    """A source as torch's loader wants it: the index is a draw."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, draw: Draw) -> Batch:  # type: ignore[override]
        return self.source.draw(draw)


def read_ahead(source: Source, draws: Iterable[Draw], workers: int) -> Iterator[Batch]:
    """The batches of the draws, in their order whatever the number of workers; 0 reads in this process."""
    loader: DataLoader[Batch] = DataLoader(
        _Drawn(source),
        sampler=draws,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )
    return iter(loader)
