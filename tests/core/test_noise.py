"""Noise: keyed by what is made, and what frames may have in common."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidgen_core.config import compose
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.run import Run, Window, opened
from vidgen_core.testing import make_run, request

WINDOWS = Window(range(0, 4), range(0, 4)), Window(range(2, 6), range(4, 6), index=1, group=1)


def drawn(noise: str, **keys: float) -> tuple[Tensor, Tensor]:
    """Noise (C, F, h, w) of two windows that overlap, of two groups."""
    config = compose([f"noise={noise}", *(f"noise.{key}={value}" for key, value in keys.items())]).config["noise"]
    run: Run = make_run(request("a", height=256, width=256), config={"noise": config})
    with opened(run, tiny.build()):
        first, second = (run.noise(window)[0] for window in WINDOWS)
    return first, second


def means(noise: Tensor) -> Tensor:
    return noise.mean((2, 3))


def test_frames_and_groups_have_nothing_in_common_unless_told() -> None:
    first, second = drawn("independent")
    assert means(torch.cat([first, second], dim=1)).unique().numel() == 4 * 8


def test_a_shared_mean_is_that_of_every_frame_in_every_group() -> None:
    plain, shared = drawn("independent"), drawn("shared_mean")
    both = means(torch.cat(shared, dim=1))
    torch.testing.assert_close(both, both[:, :1].expand_as(both))
    for one, other in zip(plain, shared, strict=True):
        torch.testing.assert_close(
            one - means(one)[..., None, None], other - means(other)[..., None, None], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixed_noise_shares_the_wanted_part_of_the_variance(share: float) -> None:
    first, second = drawn("mixed", share=share)
    frames = torch.cat([first, second], dim=1).transpose(0, 1).flatten(1)
    correlation = torch.corrcoef(frames)
    torch.testing.assert_close(correlation[0, 1:], torch.full((7,), share), atol=0.07, rtol=0)
    torch.testing.assert_close(frames.std(1), torch.ones(8), atol=0.05, rtol=0)


def test_nothing_but_the_mean_tells_shared_noise_of_one_frame_from_any_other() -> None:
    first, _ = drawn("shared_mean")
    assert abs(float(first[:, 0].std()) - 1) < 0.05


def test_a_model_may_advise_a_prior_and_the_user_decides() -> None:
    assert compose(["model=moving_shapes"]).config["choices"]["noise"] == "shared_mean"
    assert compose(["model=moving_shapes", "noise=independent"]).config["choices"]["noise"] == "independent"
    assert compose(["model=tiny"]).config["choices"]["noise"] == "independent"


def test_a_share_beyond_all_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"noise\.share=2"):
        compose(["noise=mixed", "noise.share=2"])
