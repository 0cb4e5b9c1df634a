"""Parameters with other values for a while: whoever exchanges them, and whenever, the network is left as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidgen_core.errors import BadRequest
from vidgen_core.models.tuned import Exchange, replaced

ONES, TWOS = {"weight": torch.ones(2, 2)}, {"weight": torch.full((2, 2), 2.0)}


def test_values_are_put_once_and_taken_out() -> None:
    network = nn.Linear(2, 2)
    before = network.weight.detach().clone()
    exchange = Exchange(network, ONES, "a file")
    assert torch.equal(network.weight, before)
    assert (exchange.put(), exchange.put()) == (True, False)
    assert torch.equal(network.weight, ONES["weight"])
    exchange.take_out()
    assert torch.equal(network.weight, before)


def test_one_that_puts_late_and_ends_last_leaves_the_network_as_it_was() -> None:
    network = nn.Linear(2, 2)
    before = network.weight.detach().clone()
    late = Exchange(network, ONES, "a file")
    with replaced(network, TWOS, "another"):
        late.put()
        assert torch.equal(network.weight, ONES["weight"])
    late.take_out()
    assert torch.equal(network.weight, before)


def test_values_of_another_shape_are_refused() -> None:
    with pytest.raises(BadRequest, match="'a file' does not fit the model: 1 of 1 tensors"):
        Exchange(nn.Linear(2, 2), {"weight": torch.ones(3)}, "a file")
