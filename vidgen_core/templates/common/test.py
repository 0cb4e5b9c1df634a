"""my_method keeps the contract of a method, and at no strength the model is what it was."""

import torch
from vidgen_my_method.method import MyMethod

from vidgen_core.testing import check_method, request, video


def test_the_contract_is_kept() -> None:
    check_method("my_method")


def test_at_no_strength_the_video_is_the_models_own() -> None:
    plain, mine = video(request()), video(request(), {"my_method": MyMethod(strength=0.0)})
    assert torch.allclose(plain, mine, atol=1e-5)
