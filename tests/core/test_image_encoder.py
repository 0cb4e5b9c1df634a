"""CLIP image encoders: folders of transformers, OpenCLIP's layout, and what pictures go through before them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vidgen_core.errors import BadRequest
from vidgen_core.models import image_encoder, loading
from vidgen_core.models.image_encoder import ImageEncoder, from_open_clip, load, preprocess

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
from golden_cases import ROOT, layout

SHIPPED = "pkg://vidgen_moving_shapes/weights/clip"
PREFIX = "image_encoder.model."


class Block(nn.Module):
    """A block under OpenCLIP's names, by torch's own attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 3 * width), "c_proj": nn.Linear(3 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        seen = self.ln_1(x)
        x = x + self.attn(seen, seen, seen, need_weights=False)[0]
        return x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


class Visual(nn.Module):
    """A vision transformer of 2 layers under OpenCLIP's names: 4 x 4 patches of 7 pixels, 2 heads of 64, D = 24."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(17, width))
        self.proj = nn.Parameter(torch.randn(width, 24))
        self.conv1 = nn.Conv2d(3, width, 7, 7, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.ModuleDict({"resblocks": nn.Sequential(Block(width, 2), Block(width, 2))})

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(patches), 1, -1), patches], 1) + self.positional_embedding
        return self.ln_post(self.transformer["resblocks"](self.ln_pre(x))[:, 0]) @ self.proj


@pytest.fixture(scope="module")
def visual() -> Visual:
    torch.manual_seed(0)
    return Visual().requires_grad_(False)


@pytest.fixture
def checkpoint(visual) -> dict[str, Tensor]:
    """The tensors of a larger checkpoint: the encoder's, leftovers of its text half, and what others read."""
    tensors = {f"{PREFIX}visual.{name}": tensor.clone() for name, tensor in visual.state_dict().items()}
    text = {"token_embedding.weight": (9, 8), "positional_embedding": (5, 8), "ln_final.bias": (8,), "logit_scale": ()}
    tensors |= {PREFIX + name: torch.zeros(shape) for name, shape in text.items()}
    return {**tensors, "unet.conv_in.weight": torch.zeros(3)}


def pictures(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 2 - 1


# ------------------------------------------------------------------------------------------- OpenCLIP's layout


def test_a_checkpoint_of_open_clip_computes_what_it_computes_there(visual, checkpoint) -> None:
    encoder = from_open_clip(checkpoint, PREFIX)
    found = encoder.encode(pictures(3, 3, 40, 50))
    torch.testing.assert_close(found, visual(preprocess(pictures(3, 3, 40, 50), 28)), atol=1e-5, rtol=1e-5)
    assert encoder.features == 24 and not found.requires_grad


def test_the_width_of_heads_and_the_activation_can_be_told(checkpoint) -> None:
    seen = pictures(1, 3, 28, 28)
    usual, narrow, quick = (
        from_open_clip(checkpoint, PREFIX, **options).embed(seen)
        for options in ({}, {"head_width": 32}, {"activation": "quick_gelu"})
    )
    assert not torch.allclose(usual, narrow, rtol=1e-3) and not torch.allclose(usual, quick, rtol=1e-3)


def test_a_file_of_the_layout_is_read(visual, tmp_path) -> None:
    file = tmp_path / "open_clip_model.safetensors"
    save_file({f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}, file)
    assert torch.allclose(load(str(file)).embed(pictures(1, 3, 28, 28)), visual(pictures(1, 3, 28, 28)), atol=1e-5)


def test_tensors_of_the_wanted_dtype_are_not_copied(checkpoint) -> None:
    tower = from_open_clip(checkpoint, PREFIX).tower
    conv = next(p for name, p in tower.named_parameters() if name.endswith("patch_embedding.weight"))
    assert conv.data_ptr() == checkpoint[f"{PREFIX}visual.conv1.weight"].data_ptr()


@pytest.fixture(scope="module")
def full_size() -> dict[str, Tensor]:
    shapes = layout("streaming_t2v")
    if shapes is None:
        pytest.skip(f"no layouts under {ROOT}")
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_the_published_checkpoint_loads_with_every_key_accounted_for(full_size) -> None:
    encoder = from_open_clip(full_size, PREFIX)
    config = encoder.tower.config
    assert (config.num_hidden_layers, config.num_attention_heads, config.hidden_size) == (32, 16, 1280)
    assert (config.image_size, config.patch_size, encoder.features) == (224, 14, 1024)
    assert sum(p.numel() for p in encoder.parameters()) == 632_076_800


def test_a_block_that_the_published_checkpoint_lacks_is_named(full_size) -> None:
    block = f"{PREFIX}visual.transformer.resblocks.7."
    without = {name: tensor for name, tensor in full_size.items() if not name.startswith(block)}
    with pytest.raises(BadRequest, match=rf"12 missing: {block}.*; 12 unexpected"):
        from_open_clip(without, PREFIX, name="streaming_t2v.ckpt")


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("visual.ln_pre.bias", None, r"'the checkpoint' do not fit the model: 1 missing: .*visual.ln_pre.bias"),
        ("visual.attn_pool.query", torch.zeros(3), r"1 unexpected: image_encoder.model.visual.attn_pool.query"),
        ("visual.ln_post.bias", torch.zeros(3), r"1 of another shape: .*visual.ln_post.bias', \[3\], \[128\]"),
        ("visual.transformer.resblocks.1.attn.in_proj_bias", torch.zeros(128), r"\[128\], \[384\]"),
        ("visual.positional_embedding", torch.zeros(19, 128), r"\[19, 128\], \[17, 128\]"),
        (
            "visual.proj",
            torch.zeros(24),
            r"no vision transformer in OpenCLIP's layout: image_encoder.model.visual.proj",
        ),
        ("visual.conv1.weight", None, r"no vision transformer in OpenCLIP's layout: .*visual.conv1.weight"),
    ],
)
def test_what_does_not_fit_is_named(checkpoint, name, tensor, message) -> None:
    checkpoint[PREFIX + name] = tensor
    given = {key: value for key, value in checkpoint.items() if value is not None}
    with pytest.raises(BadRequest, match=message):
        from_open_clip(given, PREFIX)


def test_a_prefix_that_nothing_has_is_refused(checkpoint) -> None:
    with pytest.raises(BadRequest, match="no vision transformer in OpenCLIP's layout: clip.visual.conv1.weight"):
        from_open_clip(checkpoint, "clip.")


def test_heads_that_do_not_divide_the_width_are_refused(checkpoint) -> None:
    with pytest.raises(BadRequest, match="128 features wide, which heads of 48 do not divide"):
        from_open_clip(checkpoint, PREFIX, head_width=48)


# ------------------------------------------------------------------------------------- folders of transformers


@pytest.fixture(scope="module")
def shipped() -> ImageEncoder:
    return load(SHIPPED)


def test_a_whole_clip_model_embeds_pictures_as_transformers_does(shipped) -> None:
    import numpy as np
    from transformers import CLIPModel

    source = loading.found(SHIPPED)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    processor = loading.picture_processor("CLIPImageProcessor").from_pretrained(source)
    model = CLIPModel.from_pretrained(source).float().eval()
    with torch.no_grad():
        seen = model.vision_model(processor(images=[picture], return_tensors="pt")["pixel_values"]).pooler_output
        expected = model.visual_projection(seen)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    torch.testing.assert_close(shipped.encode(pixels), expected, atol=1e-4, rtol=1e-4)


def test_the_whole_models_embedding_is_as_wide_as_it_says(tmp_path) -> None:
    """The vision half's own ``projection_dim`` may have been left at its default."""
    from transformers import CLIPConfig, CLIPModel

    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**size, "image_size": 32, "patch_size": 8, "projection_dim": 512}
    config = CLIPConfig(text_config={**size, "vocab_size": 9}, vision_config=vision, projection_dim=16)
    CLIPModel(config).save_pretrained(tmp_path)
    assert load(str(tmp_path)).encode(pictures(2, 3, 8, 8)).shape == (2, 16)


def test_the_vision_half_alone_is_read(shipped, tmp_path) -> None:
    shipped.tower.save_pretrained(tmp_path)
    alone = load(str(tmp_path))
    torch.testing.assert_close(alone.embed(pictures(1, 3, 64, 64)), shipped.embed(pictures(1, 3, 64, 64)))
    assert (alone.mean, alone.std) == (image_encoder.MEAN, image_encoder.STD)
    assert shipped.mean == (0.5, 0.5, 0.5)  # as the shipped folder says


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_nearly_the_same(shipped, dtype) -> None:
    half = load(SHIPPED, dtype=dtype).encode(pictures(2, 3, 80, 64))
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), shipped.encode(pictures(2, 3, 80, 64)), atol=0.1, rtol=0.1)


def test_pictures_do_not_depend_on_how_many_go_together(shipped) -> None:
    together, apart = (shipped.encode(pictures(5, 3, 70, 90), images_at_once=n) for n in (5, 2))
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)


def test_what_is_no_image_encoder_is_refused(tmp_path) -> None:
    with pytest.raises(BadRequest, match="There is no image encoder in '/nowhere/clip'"):
        load("/nowhere/clip")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadRequest, match="cannot be read"):
        load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BadRequest, match="is a bert. Give a CLIP model"):
        load(str(tmp_path))


def test_weights_that_a_folder_lacks_are_named(shipped, tmp_path) -> None:
    shipped.tower.save_pretrained(tmp_path)
    tensors = {name: tensor for name, tensor in shipped.tower.state_dict().items() if "post_layernorm" not in name}
    save_file({**tensors, "stranger": torch.zeros(1)}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadRequest, match=r"2 missing: .*post_layernorm.*; 1 unexpected: stranger"):
        load(str(tmp_path))


# ------------------------------------------------------------------------------------------- preparing pictures


def test_a_grey_picture_stays_grey_whatever_its_size() -> None:
    for height, width in ((100, 700), (300, 224), (30, 20), (1, 1)):
        seen = preprocess(torch.zeros(1, 3, height, width), mean=(0.5, 0.25, 0), std=(1, 0.5, 0.1))
        assert seen.shape == (1, 3, 224, 224)
        torch.testing.assert_close(seen.mean((0, 2, 3)), torch.tensor([0.0, 0.5, 5.0]))
        assert seen.std((2, 3)).max() < 1e-5


def test_an_axis_that_shrinks_is_blurred_and_the_other_is_not() -> None:
    """Stripes finer than a pixel of the result turn grey along the axis that shrinks, and last along the other."""
    stripes = torch.tensor([1.0, -1.0]).repeat(128)
    across = stripes.expand(1, 3, 32, 256)
    assert image_encoder.blurred_bicubic(across, 32).abs().max() < 0.02
    along = stripes[:32, None].expand(1, 3, 32, 256)
    torch.testing.assert_close(image_encoder.blurred_bicubic(along, 32), along[..., :32])


def test_the_blur_is_a_gaussian_of_half_the_excess_reflected_at_the_border() -> None:
    """Against torch's convolution: 96 -> 32 is a factor of 3, so sigma 1 and five taps."""
    row = pictures(1, 3, 1, 96)
    taps = torch.exp(-(torch.arange(-2.0, 3) ** 2) / 2)
    padded = nn.functional.pad(row.expand(-1, -1, 32, -1), (2, 2, 0, 0), mode="reflect")
    kernel = (taps / taps.sum()).expand(3, 1, 1, 5)
    blurred = nn.functional.conv2d(padded, kernel, groups=3)
    wanted = nn.functional.interpolate(blurred, (32, 32), mode="bicubic", align_corners=True)
    found = image_encoder.blurred_bicubic(row.expand(-1, -1, 32, -1), 32)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


def test_antialiased_is_what_transformers_own_processor_does() -> None:
    import numpy as np

    picture = np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)
    processor = loading.picture_processor("CLIPImageProcessor")(
        size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    wanted = processor(images=[picture], return_tensors="pt")["pixel_values"]
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    found = image_encoder.antialiased_bicubic(pixels, 64).clamp(-1, 1)
    torch.testing.assert_close(found, wanted, atol=2.5 / 127.5, rtol=0)  # it rounds to whole values twice


@pytest.mark.parametrize(("height", "width"), [(360, 640), (640, 360), (64, 48), (448, 900)])
def test_center_bilinear_is_a_box_a_cut_and_a_bilinear_halving_of_pillow(height, width) -> None:
    import numpy as np
    from PIL import Image

    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    scale = min(height, width) / 448
    whole = Image.fromarray(picture).resize((round(width / scale), round(height / scale)), Image.Resampling.BOX)
    left, top = round((whole.width - 448) / 2), round((whole.height - 448) / 2)
    wanted = whole.crop((left, top, left + 448, top + 448)).resize((224, 224), Image.Resampling.BILINEAR)
    found = image_encoder.center_bilinear(torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1, 224)
    wanted = torch.from_numpy(np.array(wanted)).permute(2, 0, 1)[None] / 127.5 - 1
    torch.testing.assert_close(found, wanted, atol=2.5 / 127.5, rtol=0)  # it rounds to whole values at every stage


def test_the_resize_can_be_chosen_and_an_unknown_one_is_refused(shipped) -> None:
    other = load(SHIPPED, resize="antialiased_bicubic")
    assert not torch.allclose(other.encode(pictures(1, 3, 99, 99)), shipped.encode(pictures(1, 3, 99, 99)), atol=1e-3)
    with pytest.raises(BadRequest, match=r"resize=antialias is no way .* Did you mean 'antialiased_bicubic'"):
        load(SHIPPED, resize="antialias")
