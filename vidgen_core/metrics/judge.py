"""A judge: a vision-language model that is shown frames of a story and asked three questions about it.

Which model answers is a ``Speaker`` (``judge_http.py``, ``judge_local.py``); what is asked, shown, read, kept and
counted is the same for all. An answer that fails or cannot be read is no score: it is counted, reported, and asked for
again by the next command.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.json_lines import add_line
from vidgen_core.metrics.footage import Footage
from vidgen_core.metrics.judge_answers import LABELS, published_scores, question, scores
from vidgen_core.metrics.judge_frames import PER_SCENE, published_indices, scene_indices

if TYPE_CHECKING:
    import numpy as np

COUNTS = ("asked", "kept", "failed", "tokens in", "tokens out")
GIVE_UP = 5
"""Stories without an answer one after the other, after which the judge is taken to be gone or unable."""


class NoAnswer(VidgenError):
    """A judge did not answer this time; another story may fare better."""


class Forbidden(BadRequest):
    """A judge may not be asked at all; or, where it has answered before, it will not look at this story."""


@dataclass(frozen=True)
class Answer:
    """What a judge said, the tokens that it read and wrote, and whether their limit cut it short."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    cut: bool = False


class Speaker(Protocol):
    """A model that answers."""

    name: str
    """Tells answers of one model from those of another."""

    def answer(self, parts: Sequence[str | np.ndarray], most_tokens: int) -> Answer:
        """The answer to one message. Raises NoAnswer for a failure of this message alone, Forbidden where it may be."""
        ...


@dataclass
class Judge:
    """Asks a speaker about stories; one answer serves all three scores.

    Args:
        rule: ``scenes``: frames inside each scene, a tolerant reading; ``published``: both as the paper's code does.
        per_scene: Frames of every scene; the published rule has four.
        price_in, price_out: Of a million tokens, in any currency.
    """

    speaker: Speaker
    rule: str = "scenes"
    per_scene: int = PER_SCENE
    most_tokens: int = 300
    price_in: float = 0.0
    price_out: float = 0.0
    _kept: dict[str, Answer] = field(default_factory=dict)
    _file: Path | None = None
    _this: dict[Path, dict[str, float | None]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    _in_a_row: int = 0

    def keep(self, file: Path) -> None:
        """Read earlier answers from a file and add new ones to it, so that no story is paid for twice."""
        self._file = file
        for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
            try:
                entry = json.loads(line)
                self._kept[entry["key"]] = Answer(entry["text"], entry["in"], entry["out"])
            except (ValueError, KeyError, TypeError):
                continue  # a line that was being written when the command was killed

    def scores(self, footage: Footage) -> dict[str, float | None]:
        """The three scores of a story by name; None for what the judge did not say."""
        if footage.path not in self._this:
            self._this[footage.path] = self._judged(footage)
        return self._this[footage.path]

    def account(self) -> dict[str, Any]:
        """Counts of questions, failures and tokens, and the cost where prices are known; kept answers cost nothing."""
        cost = (self._counts["tokens in"] * self.price_in + self._counts["tokens out"] * self.price_out) / 1e6
        priced = {"cost": round(cost, 4)} if self.price_in or self.price_out else {}
        return {"model": self.speaker.name, **self._counts, **priced}

    def parts(self, footage: Footage) -> list[str | np.ndarray]:
        """The message about a story: the question, then its frames, under the number of their scene."""
        frames = footage.frames
        if self.rule == "published":
            try:
                indices = published_indices(len(frames), len(footage.captions))
            except ValueError:
                raise BadRequest(
                    f"'{footage.name}' has {len(frames)} frames; the published rule needs four for each of its "
                    f"{len(footage.captions)} scenes. Use judge.rule=scenes."
                ) from None
            return [question(footage.captions, len(indices)), *frames[indices]]
        chosen = scene_indices(footage.spans, self.per_scene)
        parts: list[str | np.ndarray] = [question(footage.captions, sum(map(len, chosen)))]
        for number, indices in enumerate(chosen, 1):
            parts += [f"Frames of scene {number}:", *frames[indices]]
        return parts

    def _judged(self, footage: Footage) -> dict[str, float | None]:
        parts = self.parts(footage)
        key = self._key(parts)
        if key in self._kept:
            self._counts["kept"] += 1
            self._in_a_row = 0
            return self._read(self._kept[key].text)
        self._counts["asked"] += 1
        try:
            answer = self.speaker.answer(parts, self.most_tokens)
        except (NoAnswer, Forbidden) as error:
            if isinstance(error, Forbidden) and not self._kept:
                raise
            self._failed(f"no answer for '{footage.name}': {error}", answered=False)
            return dict.fromkeys(LABELS)
        self._counts["tokens in"] += answer.tokens_in
        self._counts["tokens out"] += answer.tokens_out
        found = self._read(answer.text)
        if None in found.values():
            said = " ".join(answer.text.split())[:120] or "it is empty"
            more = f" (cut off at judge.most_tokens={self.most_tokens}; give it more)" if answer.cut else ""
            self._failed(f"the answer for '{footage.name}' cannot be read: {said}{more}", answered=True)
            return found
        self._in_a_row = 0
        self._kept[key] = answer
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            entry = {"key": key, "story": footage.name, "text": answer.text}
            add_line(self._file, json.dumps({**entry, "in": answer.tokens_in, "out": answer.tokens_out}))
        return found

    def _read(self, text: str) -> dict[str, float | None]:
        if self.rule != "published":
            return scores(text)
        found = published_scores(text)
        return dict(zip(LABELS, found, strict=True)) if found else dict.fromkeys(LABELS)

    def _failed(self, message: str, answered: bool) -> None:
        self._counts["failed"] += 1
        print(f"judge: {message}", file=sys.stderr, flush=True)
        # A judge that could be read before can answer: five stories that it never answers well must not stop the rest.
        self._in_a_row = 0 if answered and self._kept else self._in_a_row + 1
        if self._in_a_row >= GIVE_UP:
            raise VidgenError(
                f"The judge failed {GIVE_UP} times one after the other; the last: {message}. Its other answers are "
                "kept: the same command goes on with what is left."
            )

    def _key(self, parts: Sequence[str | np.ndarray]) -> str:
        digest = hashlib.sha256(f"{self.speaker.name}\0{self.rule}\0{self.most_tokens}".encode())
        for part in parts:
            digest.update(part.encode() if isinstance(part, str) else repr(part.shape).encode() + part.tobytes())
        return digest.hexdigest()


class Judged:
    """A metric that is one of a judge's three answers.

    Args:
        question: ``entity``, ``background`` or ``text``.
    """

    def __init__(self, question: str, judge: Judge) -> None:
        self.columns: tuple[str, ...] = (question,)
        self._judge = judge

    def score(self, footage: Footage) -> dict[str, float | None]:
        """YES 1, PARTIALLY 0.5, NO 0; None where the judge failed."""
        return {name: self._judge.scores(footage)[name] for name in self.columns}
