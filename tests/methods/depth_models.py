"""A little depth estimator, in the layouts of published ones."""

from __future__ import annotations

import json

import torch
import transformers

SIDE = 32
PROCESSOR = {
    "feature_extractor_type": "DPTFeatureExtractor",
    "do_resize": True,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "resample": 2,
    "size": SIDE,
}
"""As the published Stable Diffusion 2 depth model writes it."""


def dpt(**keys):
    torch.manual_seed(0)
    config = transformers.DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=SIDE,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        **keys,
    )
    model = transformers.DPTForDepthEstimation(config).eval()
    with torch.no_grad():  # fresh weights are so small that all maps are flat; below 0 the head cuts
        for tensor in model.parameters():
            tensor.mul_(5)
        model.head.head[-2].bias += 5
    return model


def save(folder, model, of_model: str = "", of_pictures: str = ""):
    model.save_pretrained(folder / of_model)
    (folder / of_pictures).mkdir(exist_ok=True)
    (folder / of_pictures / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return str(folder)
