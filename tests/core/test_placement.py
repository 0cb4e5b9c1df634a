"""The plan of where tensors live: what is chosen, what is refused, and what is printed."""

from __future__ import annotations

import pytest
import torch

from vidgen_core import placement
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.testing import request


@pytest.fixture(scope="module")
def backbone():
    return tiny.build()


def test_the_automatic_choice_on_a_cpu_is_exact(backbone) -> None:
    plan = placement.plan({"device": "cpu"}, backbone, request())
    assert (plan.device.type, plan.dtype, plan.guidance) == ("cpu", torch.float32, "batched")


def test_short_memory_asks_for_pieces_and_says_why(backbone, monkeypatch) -> None:
    monkeypatch.setattr(placement, "free_memory", lambda device: 2**20)
    plan = placement.plan({"device": "cpu"}, backbone, request(num_frames=64))
    assert plan.guidance == "two_pass" and plan.feed_forward_chunks > 1 and plan.vae_slice == 1
    assert "GiB are free" in str(plan)


def test_what_the_user_set_is_kept(backbone, monkeypatch) -> None:
    monkeypatch.setattr(placement, "free_memory", lambda device: 2**20)
    config = {"device": "cpu", "guidance": "batched", "feed_forward_chunks": 3, "vae_slice": 5}
    plan = placement.plan(config, backbone, request(num_frames=64))
    assert (plan.guidance, plan.feed_forward_chunks, plan.vae_slice) == ("batched", 3, 5)


def test_the_plan_prints_in_one_line(backbone) -> None:
    text = str(placement.plan({"device": "cpu", "dtype": "bf16", "offload": "model"}, backbone, request()))
    assert text.startswith("cpu bf16; guidance batched; VAE 1 frame at a time; model offload")
    assert "\n" not in text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"device": "gpu7"}, "placement.device=gpu7 is no device"),
        ({"device": "cpu", "dtype": "fp8"}, "placement.dtype=fp8 is not known. Did you mean"),
        ({"device": "cpu", "offload": "modle"}, "Did you mean 'model'"),
        ({"device": "cpu", "compile": "graph"}, "needs a CUDA device"),
        ({"compile": "blocks+graph", "offload": "model"}, "Choose one of the two"),
        pytest.param(
            {"device": "cuda"},
            "sees no CUDA device",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
    ],
)
def test_what_cannot_be_placed_is_refused(config, message) -> None:
    with pytest.raises(BadRequest, match=message):
        placement.device_and_dtype(config)
