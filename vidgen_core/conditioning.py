"""From prompts on a frame axis to what the network sees: distinct texts, and which frame attends to which.

B videos, F frames, U distinct texts, L text tokens, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vidgen_core.errors import VidgenError
from vidgen_core.kept import Kept

if TYPE_CHECKING:
    from vidgen_core.run import Run, Window


@dataclass(frozen=True)
class Branches:
    """A condition that differs between the guided (``cond``) and the unguided (``uncond``) prediction."""

    cond: Any
    uncond: Any


@dataclass(frozen=True)
class PerFrameText:
    """Text for every frame without a copy per frame.

    Attributes:
        embeds: (U, L, D) the distinct texts. Keys and values are projected once per such tensor *object*.
        index: (B, F) integers into U: the text of each absolute frame of the window.
        tokens: Source -> (U, T, D) image tokens that go with each text, kept apart by where they come from. They
            follow the text in cross-attention, but for those that a method mixes into it.
    """

    embeds: Tensor
    index: Tensor
    tokens: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Tokens of one row, those of images too."""
        return int(self.embeds.shape[1]) + sum(int(rows.shape[1]) for rows in self.tokens.values())

    def part(self, frames: slice) -> PerFrameText:
        """The text of some of the window's frames."""
        return PerFrameText(self.embeds, self.index[:, frames], self.tokens)

    def beside(self, source: str, rows: Tensor, index: Tensor) -> PerFrameText:
        """The same text with image tokens of a source beside it, in a table of the pairs that occur.

        Args:
            rows: (R, T, D) distinct tokens.
            index: (B, F) integers into R: those that each absolute frame of the window reads.
        """
        pairs, which = torch.unique(self.index * len(rows) + index, return_inverse=True)
        return self._paired(source, rows, pairs, which)

    def _paired(self, source: str, rows: Tensor, pairs: Tensor, index: Tensor) -> PerFrameText:
        """The table of these pairs, text * R + row, read by ``index``."""
        text, tokens = (pairs // len(rows)).to(self.embeds.device), (pairs % len(rows)).to(rows.device)
        others = {name: table[text.to(table.device)] for name, table in self.tokens.items()}
        return PerFrameText(self.embeds[text], index, {**others, source: rows[tokens]})

    def without(self, source: str) -> PerFrameText:
        """The same text without the image tokens of one source."""
        return PerFrameText(self.embeds, self.index, {s: rows for s, rows in self.tokens.items() if s != source})


class TokenTables:
    """``PerFrameText.beside`` for tokens that stay as they are: all windows of a video share one table as one object,
    which is projected once.
    """

    def __init__(self) -> None:
        self._kept: Kept[PerFrameText] = Kept()

    def beside(self, text: PerFrameText, source: str, rows: Tensor, index: Tensor) -> PerFrameText:
        """As ``text.beside``, in a table of all pairs, whichever occur in this window; so rows must be few."""
        every = torch.arange(len(text.embeds) * len(rows))
        made = (text.embeds, *text.tokens.values(), rows)
        table = self._kept.of(made, lambda: text._paired(source, rows, every, every))
        return PerFrameText(table.embeds, text.index * len(rows) + index, table.tokens)


class Condition(dict[str, Any]):
    """The named conditions of one window. Any value may be ``Branches``."""

    def branch(self, name: str) -> dict[str, Any]:
        """The conditions of one guidance branch, ``cond`` or ``uncond``."""
        return {key: getattr(value, name) if isinstance(value, Branches) else value for key, value in self.items()}


def check_tokens(condition: Condition, methods: Collection[str]) -> None:
    """Raise VidgenError for image tokens beside the text under a name that another method could use too."""
    for branch in ("cond", "uncond"):
        for source in condition.branch(branch)["text"].tokens:
            if source.partition(".")[0] not in methods:
                raise VidgenError(
                    f"Image tokens stand beside the text as '{source}', the name of no method of this run, so that "
                    f"another could take it too. Methods use their own: {', '.join(methods)}."
                )


class TextTable:
    """The distinct texts of one run, each encoded once; rows are stable, so windows share one ``embeds``.

    Args:
        encode: Texts to their embeddings (n, L, D).
    """

    def __init__(self, encode: Callable[[Sequence[str]], Tensor]) -> None:
        self._encode = encode
        self._rows: dict[Any, int] = {}
        self.embeds: Tensor | None = None

    def rows(self, texts: Sequence[str]) -> list[int]:
        """The row of each text; those not seen before are encoded in one batch."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if missing:
            self._append(missing, self._encode(missing))
        return [self._rows[text] for text in texts]

    def blend(self, first: str, second: str, weight: float) -> int:
        """The row of (1 - weight) * first + weight * second, for a cross-fade between neighbouring captions."""
        key = (first, second, round(weight, 6))
        if key not in self._rows:
            a, b = self.rows([first, second])
            assert self.embeds is not None
            self._append([key], torch.lerp(self.embeds[a], self.embeds[b], weight)[None])
        return self._rows[key]

    def put(self, texts: Sequence[str], embeds: Tensor) -> None:
        """Supply embeddings (n, L, D) for texts instead of encoding them."""
        self._append(texts, embeds)

    def _append(self, keys: Sequence[Any], embeds: Tensor) -> None:
        start = 0 if self.embeds is None else len(self.embeds)
        self._rows.update({key: start + i for i, key in enumerate(keys)})
        self.embeds = embeds if self.embeds is None else torch.cat([self.embeds, embeds])


def warn_cut(run: Run, texts: Iterable[str]) -> None:
    """Warn, with numbers, of every text that is cut at the token limit."""
    backbone = run.backbone
    for text in dict.fromkeys(texts) if backbone.tokenizer is not None else ():
        tokens, limit = backbone.count_tokens(text), backbone.max_tokens
        if tokens > limit:
            run.warn(
                f"a prompt needs {tokens} tokens, the model reads {limit}: its last {tokens - limit} are cut "
                f"(it ends in '...{text[-40:]}')."
            )


def warn_limits(run: Run, frames: int) -> None:
    """Warn, with numbers, of a text cut at the token limit, or windows of more ``frames`` than the model knows."""
    scenes = [scene for video in run.request.videos for scene in video.scenes]
    warn_cut(run, [*(s.prompt for s in scenes), *(s.negative_prompt for s in scenes)])
    trained = run.backbone.trained_frames
    if trained and frames > trained:
        run.warn(f"{frames} frames are denoised together; the model was trained for {trained}.")


def text_per_frame(run: Run, window: Window, row: Callable[[int, int], int] | None = None) -> Branches:
    """The text of each absolute frame's scene, and of its negative prompt, as ``Branches`` of ``PerFrameText``.

    Args:
        row: (video, absolute frame) -> row of ``run.texts`` for the guided branch; default the frame's scene.
    """
    # All texts of the run at once: one table, one projection of keys and values for every window to come.
    run.texts.rows([s.prompt for v in run.request.videos for s in v.scenes])
    run.texts.rows([s.negative_prompt for v in run.request.videos for s in v.scenes])

    def scene_row(video: int, frame: int, field: str) -> int:
        timeline = run.request.videos[video]
        return run.texts.rows([getattr(timeline.scenes[timeline.scene_at(frame)], field)])[0]

    videos = range(len(run.request.videos))
    positive = row or (lambda video, frame: scene_row(video, frame, "prompt"))
    cond = [[positive(v, f) for f in window.span] for v in videos]
    uncond = [[scene_row(v, f, "negative_prompt") for f in window.span] for v in videos]
    embeds = run.texts.embeds
    assert embeds is not None
    return Branches(PerFrameText(embeds, torch.tensor(cond)), PerFrameText(embeds, torch.tensor(uncond)))
