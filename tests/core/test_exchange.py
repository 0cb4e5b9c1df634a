"""Layers that several methods have tuned: what a network was comes back, and an overlap is told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vidgen_core.errors import BadRequest
from vidgen_core.models.tuned import Exchange, weights_of


@pytest.fixture
def network() -> nn.Module:
    return nn.Linear(2, 1).requires_grad_(False)


def exchange(network: nn.Module, value: float, source: str, told: list[str], name: str = "bias") -> Exchange:
    return Exchange(network, {name: torch.full_like(network.get_parameter(name), value)}, source, told.append)


@pytest.mark.parametrize("first_out", [0, 1])
def test_two_that_share_layers_are_told_of_and_leave_the_network_as_it_was(network, first_out) -> None:
    before, told = network.bias.clone(), []
    both = [exchange(network, 1.0, "a.safetensors", told), exchange(network, 2.0, "b.safetensors", told)]
    assert len(told) == 1
    assert told[0].startswith("'a.safetensors' and 'b.safetensors' both bring 1 tuned layers of the model")
    for one in both:
        assert one.put()
    assert network.bias.item() == 2.0
    both[first_out].take_out()
    both[1 - first_out].take_out()
    assert torch.equal(network.bias, before)


def test_layers_of_their_own_or_one_after_the_other_are_no_matter(network) -> None:
    told: list[str] = []
    exchange(network, 1.0, "a", told)
    exchange(network, 1.0, "b", told, "weight").take_out()
    exchange(network, 2.0, "b", told, "weight")
    assert told == []


def test_of_two_methods_one_may_bring_a_training_and_the_other_a_file(tmp_path) -> None:
    (tmp_path / "run/methods").mkdir(parents=True)
    for file in ("run/methods/a.safetensors", "b.safetensors"):
        (tmp_path / file).touch()
    config = {"tuned": str(tmp_path / "run"), "weights": {"b": str(tmp_path / "b.safetensors")}, "model": {}}
    assert weights_of(config, "a") == tmp_path / "run/methods/a.safetensors"
    assert weights_of(config, "b") == tmp_path / "b.safetensors"
    with pytest.raises(BadRequest, match="holds nothing that 'c' learnt: it was tuned with a"):
        weights_of(config, "c")


def test_what_does_not_fit_is_refused_with_the_first_name(network) -> None:
    with pytest.raises(BadRequest, match="'a' does not fit the model: 1 of 1 tensors .* first 'scale'"):
        Exchange(network, {"scale": torch.ones(1)}, "a", print)
