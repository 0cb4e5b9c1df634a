"""Attention of the UNet families: which kernel runs, and how methods put their processors in place.

diffusers' own backend switch is ignored by these UNets' processors, so the kernel is chosen here and a backend that
cannot run is an error, never a fallback. B batch, N queries, L keys, h heads, d head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from vidgen_core.errors import BadRequest, Conflict, VidgenError, nearest
from vidgen_core.hookspecs import ATTENTIONS

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(q (B, h, N, d), k (B, h, L, d), v (B, h, L, d)) -> (B, h, N, d)."""


# ------------------------------------------------------------------------------------------------ backends


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def _flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return F.scaled_dot_product_attention(q, k, v)


def _xformers(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from xformers.ops import memory_efficient_attention

    # xformers wants B N h d
    out: Tensor = memory_efficient_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


def _math(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # The materialised reference, for comparisons only: its score matrix is B h N L.
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1) @ v


MOST_ROWS = 65_535
"""B of one call: a larger grid is refused by CUDA (pytorch issue 146704, xformers issue 845). Attention along the
frames has a row for every place of every video, so training on many small videos reaches it."""


def _in_calls(kernel: Attend) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if q.shape[0] <= MOST_ROWS:
            return kernel(q, k, v)
        calls = zip(*(x.split(MOST_ROWS) for x in (q, k, v)), strict=True)
        return torch.cat([kernel(*call) for call in calls])

    return attend


BACKENDS: dict[str, Attend] = {
    "sdpa": _in_calls(_sdpa),
    "flash": _in_calls(_flash),
    "xformers": _in_calls(_xformers),
    "math": _math,
}


def backend(name: str, device: torch.device, dtype: torch.dtype) -> tuple[str, Attend]:
    """The kernel to run: its name and function, tried on this device and dtype.

    ``auto`` is sdpa, which picks its own fastest kernel. Raises BadRequest for an unknown backend or one that fails
    here (importable is not the same as able: xformers has no CPU operator).
    """
    name = "sdpa" if name == "auto" else name
    if name not in BACKENDS:
        raise BadRequest(f"attention={name} is not a backend.{nearest(name, [*BACKENDS, 'auto'])}")
    probe = torch.zeros(1, 1, 8, 32, device=device, dtype=dtype)
    try:
        BACKENDS[name](probe, probe, probe)
    except Exception as error:  # ImportError, NotImplementedError, RuntimeError: each backend has its own way
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise BadRequest(
            f"attention={name} cannot run on {device.type} in {str(dtype).removeprefix('torch.')}: {reason}. "
            "Use attention=sdpa (or auto), which runs everywhere."
        ) from error
    return name, BACKENDS[name]


# ---------------------------------------------------------------------------------------------- processors


class Processor(Protocol):
    """What diffusers' ``Attention`` calls. ``backend`` names the kernel that it runs."""

    backend: str

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **kwargs: Any
    ) -> Tensor: ...


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, N, h * d) -> (B, h, N, d), a view."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def project_out(attn: Attention, x: Tensor) -> Tensor:
    """(B, h, N, d) -> (B, N, D) through the output projection and its dropout."""
    x = attn.to_out[0](x.transpose(1, 2).flatten(2))
    x = attn.to_out[1](x)
    # 1.0 in these UNets: dividing by it would be one more pass over memory.
    return x if attn.rescale_output_factor == 1.0 else x / attn.rescale_output_factor


def attended(attn: Attention, attend: Attend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The kernel's output in q's dtype; computed in single precision at least where the model asks for it.

    Products of Stable Diffusion 2.1 overflow in half. Autocast would take the kernel's inputs back to it.
    """
    if not attn.upcast_attention:
        return attend(q, k, v).to(q.dtype)
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        return attend(q.to(wide), k.to(wide), v.to(wide)).to(q.dtype)


class SelfAttention:
    """Attention over (B, N, D), or over the given ``encoder_hidden_states`` (B, L, D')."""

    def __init__(self, backend: str, attend: Attend) -> None:
        self.backend = backend
        self.attend = attend

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q = split_heads(attn.to_q(hidden_states), attn.heads)
        k = split_heads(attn.to_k(source), attn.heads)
        v = split_heads(attn.to_v(source), attn.heads)
        return project_out(attn, attended(attn, self.attend, q, k, v))


class TextCrossAttention:
    """Cross-attention to per-frame text that is projected once per run.

    ``set_text`` hands over keys and values (G, h, L, d): one row for every ``B * F / G`` neighbouring frames that read
    the same text. Those frames are folded into the query axis, so no key is ever copied per frame.
    """

    def __init__(self, backend: str, attend: Attend) -> None:
        self.backend = backend
        self.attend = attend
        self.key: Tensor | None = None
        self.value: Tensor | None = None
        # Source of image tokens -> how this layer mixes them into the text: (embeds, tokens) -> (U, L, D).
        self.mixes: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}

    def project(self, attn: Attention, embeds: Tensor, tokens: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Keys and values (U, h, L', d) of the distinct texts (U, L, D) and the image tokens (U, T, D) of each.

        L' is L and the T of every source that is not mixed into the text.
        """
        for source in self.mixes.keys() & tokens.keys():
            embeds = self.mixes[source](embeds, tokens[source])
        following = [rows for source, rows in tokens.items() if source not in self.mixes]
        embeds = torch.cat([embeds, *following], dim=1) if following else embeds
        return split_heads(attn.to_k(embeds), attn.heads), split_heads(attn.to_v(embeds), attn.heads)

    def set_text(self, key: Tensor | None, value: Tensor | None) -> None:
        """Use these keys and values (G, h, L, d) in the coming calls."""
        self.key, self.value = key, value

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        assert self.key is not None and self.value is not None, "text was not set before the network was called"
        rows, tokens, width = hidden_states.shape  # B*F, N, D
        groups = len(self.key)
        q = split_heads(attn.to_q(hidden_states).view(groups, rows // groups * tokens, -1), attn.heads)
        out = attended(attn, self.attend, q, self.key, self.value)
        return project_out(attn, out).view(rows, tokens, width)


# ---------------------------------------------------------------------------------------------- installation

Build = Callable[[str, Attention, Any], Any]
"""(module name, module, the processor in place) -> the processor to put there; it may call the one in place."""


def attentions(network: nn.Module) -> Iterator[tuple[str, Attention]]:
    """Every attention module with its name."""
    return ((name, module) for name, module in network.named_modules() if isinstance(module, Attention))


@contextmanager
def install(
    network: nn.Module,
    where: Callable[[str, Attention], bool],
    build: Build,
    *,
    owner: str,
    replaces: bool = False,
) -> Iterator[list[Any]]:
    """Put processors in place for the duration of the context and restore the very objects afterwards.

    A method that replaces says so beforehand: its ``attach`` claims the ``kind_of`` every module that it chooses.

    Args:
        where: Chooses the attention modules by name and module.
        build: Makes the new processor; wrapping composes in the order in which methods are attached.
        owner: The method's name, for conflicts.
        replaces: True when the processor in place is not called any more.

    Yields:
        The installed processors.

    Raises:
        Conflict: when a method replaces a processor of another, which would never be called.
    """
    chosen = [(name, module) for name, module in attentions(network) if where(name, module)]
    standing = _standing(network)
    if replaces:
        for name, module in chosen:
            _check_replaced(name, kind_of(name, module), standing.get(name, ()), owner)
    before = [(module, module.processor) for _, module in chosen]
    installed: list[tuple[str, Standing]] = []
    try:
        for name, module in chosen:
            installed.append((name, Standing(owner, replaces, build(name, module, module.processor))))
            standing.setdefault(name, []).append(installed[-1][1])
            module.set_processor(installed[-1][1].processor)
        yield [one.processor for _, one in installed]
    finally:
        for module, processor in reversed(before):
            module.set_processor(processor)
        for name, one in installed:
            standing[name].remove(one)


class Standing(NamedTuple):
    """A processor that ``install`` put in place."""

    owner: str
    replaces: bool
    processor: Any


def _standing(network: nn.Module) -> dict[str, list[Standing]]:
    """Name of an attention module -> what was put in place of it, the last one outermost."""
    found: dict[str, list[Standing]] = network.__dict__.setdefault("_vidgen_processors", {})
    return found


def _of_this_run(standing: Sequence[Standing]) -> Sequence[Standing]:
    """Those after the core's own, which a run inside another one puts in anew."""
    last = max((place for place, one in enumerate(standing) if one.owner == "core"), default=-1)
    return standing[last + 1 :]


def uncalled(network: nn.Module, called: Collection[int]) -> tuple[str, str]:
    """An attention whose wrappers never call the core's processor, and their owner; empty where all do.

    Args:
        called: ``id`` of the processors that were called.
    """
    for name, standing in _standing(network).items():
        own = _of_this_run(standing)
        core = standing[-len(own) - 1] if own and len(own) < len(standing) else None
        if core is not None and id(core.processor) not in called and not any(one.replaces for one in own):
            return name, own[0].owner
    return "", ""


def _check_replaced(name: str, kind: str, standing: Iterable[Standing], owner: str) -> None:
    for other, replaces, _ in standing:
        if replaces:
            told = f"'{other}' and '{owner}' both replace the attention of '{name}'. Leave one of them out."
            raise Conflict(told, over="attach")
        if other not in (owner, "core"):
            raise Conflict(
                f"'{owner}' replaces the attention of '{name}', so '{other}', which wraps it, would never be called. "
                f"Where its attach says so, @hookimpl(claims='{kind}'), '{other}' comes around it.",
                over="attach",
            )


def kind_of(name: str, module: Attention) -> str:
    """What a method claims that replaces an attention, of ``hookspecs.ATTENTIONS``. Tokens of the last are frames."""
    own, cross, temporal = ATTENTIONS
    if any(part in name for part in ("temp_attentions", "transformer_in", "motion_modules", "temporal")):
        return temporal
    return cross if module.is_cross_attention else own


def verify_claims(network: nn.Module, claims: Mapping[str, Collection[str]]) -> None:
    """Raise VidgenError for processors that are in place and of which others were not told.

    A method that claims a kind of attention claims all that it touches: it comes before those that claim none, and two
    such are told apart before weights load.

    Args:
        claims: Method -> the kinds of attention that its ``attach`` claims.
    """
    for name, module in attentions(network):
        standing = _standing(network).get(name, [])
        kind = kind_of(name, module)
        for owner, replaces, _ in _of_this_run(standing):
            if owner not in claims:
                raise VidgenError(
                    f"The attention of '{name}' has a processor of '{owner}', which is no method of this run. Methods "
                    f"install under their own name: owner='{next(iter(claims), 'my_method')}'."
                )
            if (replaces or claims[owner]) and kind not in claims[owner]:
                what = "replaces" if replaces else "wraps"
                raise VidgenError(
                    f"The method '{owner}' {what} the attention of '{name}' and does not claim it, so that another "
                    f"could replace it too. Mark its attach with @hookimpl(claims='{kind}'), beside what it claims."
                )
        if standing and module.processor is not standing[-1].processor:
            methods = " or ".join(f"'{method}'" for method in claims)
            raise VidgenError(
                f"A {type(module.processor).__name__} was put in place of the attention of '{name}', by {methods}, "
                "and others are not told of it. Methods install processors by vidgen_core.attention.install."
            )


def is_plain(attn: Attention) -> bool:
    """Whether an attention module has none of the extras (group norm, residual, added keys) of other families."""
    extras = (attn.group_norm, attn.spatial_norm, attn.norm_q, attn.norm_k, getattr(attn, "add_k_proj", None))
    return all(extra is None for extra in extras) and not attn.residual_connection and not attn.norm_cross


def verify_backend(network: nn.Module, name: str) -> None:
    """Raise VidgenError unless every attention of the network runs the backend that was asked for."""
    other = [n for n, module in attentions(network) if getattr(module.processor, "backend", None) != name]
    if other:
        raise VidgenError(
            f"attention={name} was asked for, but {len(other)} attention modules run something else, first "
            f"'{other[0]}'. "
            "A method that installs processors must run them through `backbone.attend`."
        )
