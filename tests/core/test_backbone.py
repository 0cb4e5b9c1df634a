"""The stock UNet3D with per-frame text: exact, and left as it was found."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager

import pytest
import torch

from vidgen_core import attention, hookimpl
from vidgen_core.conditioning import Branches, Condition, PerFrameText
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.models import tiny
from vidgen_core.testing import make_run, request, video

FRAMES = 5
T = torch.tensor(7)


@pytest.fixture(scope="module")
def backbone():
    return tiny.build()


@pytest.fixture(scope="module")
def texts(backbone):
    return backbone.encode_text(["one", "two", ""])


def sample(seed: int = 0, batch: int = 1):
    return torch.randn(batch, 4, FRAMES, 8, 8, generator=torch.Generator().manual_seed(seed))


def stock_with_text_per_row(backbone, latents, text):
    """The stock network with the text of every row (B*F, L, D) put in by hooks: the method as it was published."""
    from diffusers.models.transformers.transformer_2d import Transformer2DModel

    def give(module, args, kwargs):
        return args, {**kwargs, "encoder_hidden_states": text}

    modules = [m for m in backbone.denoiser.modules() if isinstance(m, Transformer2DModel)]
    handles = [m.register_forward_pre_hook(give, with_kwargs=True) for m in modules]
    try:
        return backbone.denoiser(latents, T, encoder_hidden_states=text[: len(latents)]).sample
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("rows", [[0, 0, 0, 0, 0], [0, 0, 1, 1, 1], [0, 1, 0, 1, 0], [1, 1, 1, 1, 0]])
@torch.no_grad()
def test_per_frame_text_equals_text_given_to_every_row(backbone, texts, rows) -> None:
    index = torch.tensor([rows])
    expected = stock_with_text_per_row(backbone, sample(), texts[index.flatten()])
    with backbone.attention_installed("sdpa"):
        inputs = backbone.prepare(Condition(text=PerFrameText(texts, index)), ["cond"])
        found = backbone.predict(sample(), T, inputs)
    assert torch.allclose(found, expected, atol=2e-6)


@torch.no_grad()
def test_branches_in_one_batch_equal_branches_one_by_one(backbone, texts) -> None:
    text = Branches(PerFrameText(texts, torch.tensor([[0, 0, 1, 1, 1]])), PerFrameText(texts, torch.full((1, 5), 2)))
    with backbone.attention_installed("sdpa"):
        both = backbone.predict(
            torch.cat([sample()] * 2), T, backbone.prepare(Condition(text=text), ["uncond", "cond"])
        )
        for row, branch in enumerate(("uncond", "cond")):
            alone = backbone.predict(sample(), T, backbone.prepare(Condition(text=text), [branch]))
            assert torch.allclose(both[row : row + 1], alone, atol=2e-6)


@torch.no_grad()
def test_image_tokens_beside_a_text_are_read_as_more_of_its_tokens(backbone, texts) -> None:
    rows = torch.randn(2, 3, texts.shape[-1], generator=torch.Generator().manual_seed(3))
    index, which = torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[1, 1, 1, 0, 0]])
    joined = torch.cat([texts[index[0]], rows[which[0]]], dim=1)
    expected = stock_with_text_per_row(backbone, sample(), joined)
    text = PerFrameText(texts, index).beside("image", rows, which)
    assert len(text.embeds) == 3  # the pairs that occur
    with backbone.attention_installed("sdpa"):
        found = backbone.predict(sample(), T, backbone.prepare(Condition(text=text), ["cond"]))
    assert torch.allclose(found, expected, atol=2e-6)


def test_tokens_of_another_source_stay_with_their_text(texts) -> None:
    first, second = torch.arange(3.0)[:, None, None], torch.tensor([7.0, 8.0])[:, None, None]
    text = PerFrameText(texts, torch.tensor([[2, 0]]), {"one": first}).beside("two", second, torch.tensor([[0, 1]]))
    assert [(int(text.tokens["one"][i]), int(text.tokens["two"][i])) for i in text.index[0]] == [(2, 7), (0, 8)]


def test_branches_with_tokens_of_other_sources_are_predicted_apart(backbone) -> None:
    class Beside:
        def __init__(self, branch):
            self.branch = branch

        @hookimpl
        def refine_condition(self, condition):
            text = condition["text"]
            branch = getattr(text, self.branch)
            rows = torch.ones(1, 2, branch.embeds.shape[-1])
            told = {self.branch: branch.beside(self.branch, rows, torch.zeros_like(branch.index))}
            return Condition({**condition, "text": dataclasses.replace(text, **told)})

    batched = {"placement": {"guidance": "batched"}}
    video(request(), {name: Beside(name) for name in ("cond", "uncond")}, config=batched, backbone=backbone)


def processors(backbone):
    return {name: id(module.processor) for name, module in attention.attentions(backbone.denoiser)}


def test_the_very_processors_are_restored_also_after_an_exception(backbone) -> None:
    before, names = processors(backbone), list(backbone.state_dict())
    with pytest.raises(ZeroDivisionError), backbone.attention_installed("sdpa"):
        assert all(id_ != before[name] for name, id_ in processors(backbone).items())
        raise ZeroDivisionError
    assert processors(backbone) == before
    assert list(backbone.state_dict()) == names


def test_a_whole_run_leaves_the_backbone_as_found(backbone) -> None:
    before = processors(backbone)
    forwards = {name: module.forward for name, module in backbone.named_modules()}
    video(request(), config={"placement": {"feed_forward_chunks": 4, "vae_tiling": True}}, backbone=backbone)
    assert processors(backbone) == before
    assert {name: module.forward for name, module in backbone.named_modules()} == forwards
    assert not backbone.vae.use_tiling


@pytest.mark.parametrize("name", ["flash", "math"])
def test_backends_agree(backbone, name) -> None:
    assert torch.allclose(
        video(request(), config={"attention": name}, backbone=backbone),
        video(request(), backbone=backbone),
        atol=1e-4,
    )


def test_a_backend_that_cannot_run_here_is_refused(backbone) -> None:
    with pytest.raises(BadRequest, match=r"attention=xformers cannot run on cpu in float32.*Use attention=sdpa"):
        video(request(), config={"attention": "xformers"}, backbone=backbone)


def test_an_unknown_backend_is_refused_with_the_nearest(backbone) -> None:
    with pytest.raises(BadRequest, match="Did you mean 'flash'"):
        video(request(), config={"attention": "flsh"}, backbone=backbone)


def test_an_attention_that_ignores_the_backend_is_an_error(backbone) -> None:
    from diffusers.models.attention_processor import AttnProcessor

    with backbone.attention_installed("sdpa"):
        name, module = next(attention.attentions(backbone.denoiser))
        with (
            attention.install(
                backbone.denoiser, lambda n, m: m is module, lambda *_: AttnProcessor(), owner="stranger"
            ),
            pytest.raises(VidgenError, match=f"1 attention modules run something else, first '{name}'"),
        ):
            backbone.verify_attention()


def test_two_replacements_of_one_module_are_refused_with_both_names(backbone) -> None:
    def install(owner):
        return attention.install(
            backbone.denoiser, lambda n, m: True, lambda n, m, current: current, owner=owner, replaces=True
        )

    with install("first"), pytest.raises(BadRequest, match="'first' and 'second' both replace"), install("second"):
        pass
    with install("second"):
        pass


def test_a_replacement_of_what_another_method_wraps_is_refused_with_the_claim_that_helps(backbone) -> None:
    def install(owner, replaces):
        return attention.install(
            backbone.denoiser, lambda n, m: True, lambda n, m, current: current, owner=owner, replaces=replaces
        )

    wanted = "'new' replaces .* so 'around', which wraps it, would never be called. Where its attach says so, @hookimpl"
    with backbone.attention_installed("sdpa"):
        with install("around", False), pytest.raises(BadRequest, match=wanted), install("new", True):
            pass
        with install("new", True), install("around", False):
            pass
        with install("new", False), install("new", True):  # a method's own
            pass


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_runs_and_stays_close(dtype) -> None:
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    low = video(request(), config={"placement": {"dtype": dtype}}, backbone=tiny.build(dtype=half))
    assert (low - video(request())).abs().mean() < 0.05


def test_decoding_in_slices_is_exact(backbone) -> None:
    latents = sample()
    whole = next(backbone.decode(latents, FRAMES))
    sliced = torch.cat(list(backbone.decode(latents, 2)), dim=1)
    assert sliced.shape == whole.shape == (1, FRAMES, 3, 64, 64)
    assert torch.allclose(sliced, whole, atol=1e-5)


def test_texts_are_encoded_once_each(backbone) -> None:
    run = make_run(request())
    run.place(backbone, None)
    calls = []
    run.texts._encode = lambda texts: calls.append(list(texts)) or torch.zeros(len(texts), 2, 3)
    assert run.texts.rows(["a", "b", "a"]) == [0, 1, 0]
    assert run.texts.rows(["b", "c"]) == [1, 2]
    assert calls == [["a", "b"], ["c"]]


def test_model_offload_gives_the_same_video(backbone) -> None:
    offloaded = video(request(), config={"placement": {"offload": "model"}}, backbone=backbone)
    assert torch.equal(offloaded, video(request(), backbone=backbone))


@pytest.mark.parametrize("changes", [{"guidance": "two_pass"}, {"feed_forward_chunks": 5}, {"channels_last": True}])
def test_placement_changes_memory_and_not_the_video(backbone, changes) -> None:
    placed = video(request(), config={"placement": changes}, backbone=backbone)
    assert torch.allclose(placed, video(request(), backbone=backbone), atol=1e-4)


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ((), "'mine' replaces the attention of '.*attn1' and does not claim it.*@hookimpl.claims='self_attention'"),
        (("self_attention",), None),
    ],
)
def test_what_a_method_replaces_it_must_claim(claims, message, backbone) -> None:
    class Mine:
        @hookimpl(claims=claims)
        def attach(self, backbone):
            def where(name, module):
                return name.endswith("attentions.0.transformer_blocks.0.attn1") and "temp" not in name

            def build(name, module, current):
                return attention.SelfAttention("sdpa", backbone.attend)

            return attention.install(backbone.denoiser, where, build, owner="mine", replaces=True)

    if message is None:
        video(request(), {"mine": Mine()}, backbone=backbone)
    else:
        with pytest.raises(VidgenError, match=message):
            video(request(), {"mine": Mine()}, backbone=backbone)


def test_a_processor_that_is_put_in_place_by_hand_is_refused(backbone) -> None:
    class ByHand:
        @hookimpl
        @contextmanager
        def attach(self, backbone):
            _, module = next(attention.attentions(backbone.denoiser))
            before = module.processor
            module.processor = attention.SelfAttention("sdpa", backbone.attend)
            yield
            module.processor = before

    with pytest.raises(VidgenError, match="A SelfAttention was put in place of the attention of .* by 'by_hand'"):
        video(request(), {"by_hand": ByHand()}, backbone=backbone)
