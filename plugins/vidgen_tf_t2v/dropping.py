"""Which conditions a training sample is told: all sometimes go missing, each by itself or all together.

So the network learns what a video shows from any of them, and from none, as the released network does while it trains.
What is missing is zeros: the tokens of text or image, or the channels of a map.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from vidgen_core.data.sample import Batch


@dataclass(frozen=True)
class Dropping:
    """Shares of samples.

    Attributes:
        each: That lose a condition, drawn for every condition anew.
        everything: That lose all.
        nothing: That lose none.
        negative: Whose text is the unguided one, before it may get lost.
    """

    each: float = 0.4
    everything: float = 0.1
    nothing: float = 0.1
    negative: float = 0.1

    def made_negative(self, batch: Batch) -> Tensor:
        """(B,) whether each sample reads the unguided text in the place of its own; in validation none does."""
        drawn = [batch.draw.rng(sample.number, "negative").random() for sample in batch.samples]
        return torch.tensor([batch.timestep is None and number < self.negative for number in drawn])

    def kept(self, batch: Batch, condition: str) -> Tensor:
        """(B,) whether each sample keeps a condition, keyed by its number; validation keeps all."""
        if batch.timestep is not None:
            return torch.ones(len(batch), dtype=torch.bool)
        return torch.tensor([self._keeps(batch, sample.number, condition) for sample in batch.samples])

    def _keeps(self, batch: Batch, number: int, condition: str) -> bool:
        together = batch.draw.rng(number, "conditions").random()
        if together < self.everything + self.nothing:
            return bool(together >= self.everything)
        return bool(batch.draw.rng(number, "condition", condition).random() >= self.each)
