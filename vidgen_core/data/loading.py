"""Batches of a source, read ahead by worker processes, in the order of the draws."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from torch.utils.data import DataLoader, Dataset

from vidgen_core.data.sample import of_one_size
from vidgen_core.errors import VidgenError

if TYPE_CHECKING:
    from vidgen_core.data.sample import Batch, Draw, Source


class _Drawn(Dataset["Batch | VidgenError"]):
    """A source as torch's loader wants it: the index is a draw."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, draw: Draw) -> Batch | VidgenError:
        try:
            return of_one_size(self.source.draw(draw))
        except VidgenError as error:  # handed over as a value: torch would wrap it in the worker's traceback
            return error


def read_ahead(source: Source, draws: Iterable[Draw], workers: int) -> Iterator[Batch]:
    """The batches of the draws, in their order whatever the number of workers; 0 reads in this process."""
    loader: DataLoader[Batch | VidgenError] = DataLoader(
        _Drawn(source),
        sampler=draws,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
    )
    for batch in loader:
        if isinstance(batch, VidgenError):
            raise batch
        yield batch
