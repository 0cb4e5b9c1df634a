"""What a judge is asked, and how its answer is read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vidgen_core.metrics.footage import BACKGROUND, ENTITY, TEXT

LABELS = {ENTITY: "Entity Consistency", BACKGROUND: "Background Consistency", TEXT: "Text Adherence"}
"""Name of a score -> the line of the answer that holds it."""

VERDICTS = {"yes": 1.0, "partially": 0.5, "no": 0.0}
_WORDS = {**VERDICTS, "partly": 0.5, "partial": 0.5}
_CHOICE = "|".join(_WORDS)
_DETERMINER = r"(?!\bno\s+(?!because|since|as\b)\w|\bno[-']\w)"  # "no inconsistencies", "no-one": no verdict
_WORD = re.compile(rf"\bNO\b(?![-'])|(?i:{_DETERMINER}\b(?:{_CHOICE})\b)")
_DIRECT = re.compile(rf"[\W_\d]*\b({_CHOICE})\b(?![-']\w)[ \t]*(?=$|\n|[^\w\s])", re.IGNORECASE)
_CHOICES = re.compile(rf"[\W_\d]*\w+\s*(?:/|\||or\b)\W*(?:{_CHOICE})\b", re.IGNORECASE)
_LABEL = {
    name: re.compile(rf"\b{first}[\s_-]*{second}\b(?P<heads>[ \t*_`\"')]*(?:[:=|\n–—-]|$))?", re.IGNORECASE)
    for name, (first, second) in {name: label.split() for name, label in LABELS.items()}.items()
}
_THOUGHT = re.compile(r".*</think(?:ing)?>|<think(?:ing)?>.*", re.IGNORECASE | re.DOTALL)


def question(captions: Sequence[str], frames: int) -> str:
    """The text that goes before the frames."""
    scenes = "one scene" if len(captions) == 1 else f"{len(captions)} scenes"
    script = "\n".join(f"Scene {i}: {caption}" for i, caption in enumerate(captions, 1))
    return (
        f"You are a careful judge of videos. Below is a script of {scenes}, and {frames} frames, in order, of a video "
        "that was made from it. Judge three things.\n"
        "1. Entity Consistency: do the characters and objects stay the same throughout the video? A change that the "
        "script does not ask for, such as other clothes, another colour, shape or place, is an inconsistency.\n"
        "2. Background Consistency: does the background stay the same throughout the video, such as the same room, "
        "unless the script changes it?\n"
        "3. Text Adherence: does the video show the events and actions of the script, in their order?\n"
        "Answer each with YES, PARTIALLY or NO and nothing else, in exactly three lines:\n"
        + "\n".join(f"{label}: <answer>" for label in LABELS.values())
        + f"\n\n{script}"
    )


def scores(text: str) -> dict[str, float | None]:
    """The three scores in a judge's answer, however it is laid out; None for one that cannot be told.

    Case, numbering, markdown, blank lines, other separators, JSON and explanations are understood; an answer of three
    bare words is taken in the order of the question. Where a model thinks aloud, the last word counts. Nothing that is
    unclear becomes a 0.
    """
    text = _THOUGHT.sub("", text)
    places = {name: match for name, pattern in _LABEL.items() if (match := _last(list(pattern.finditer(text))))}
    if not places:
        lines = [line.strip(" \t*-.#0123456789)") for line in text.splitlines() if line.strip()]
        if len(lines) == len(LABELS) and all(line.lower() in _WORDS for line in lines):
            return {name: _WORDS[line.lower()] for name, line in zip(LABELS, lines, strict=True)}
        return dict.fromkeys(LABELS)
    found: dict[str, float | None] = dict.fromkeys(LABELS)
    for name, match in places.items():
        stops = [other.start() for other in places.values() if other.start() > match.start()]
        found[name] = _verdict(text[match.end() : min(stops, default=len(text))])
    return found


def _last(mentions: list[re.Match[str]]) -> re.Match[str] | None:
    # A label that is only spoken of, in the reason for another verdict, does not head an answer.
    heads = [match for match in mentions if match["heads"] is not None]
    return next(reversed(heads or mentions), None)


def _verdict(answer: str) -> float | None:
    # The word right behind the label is the verdict if it ends its clause; in prose it has to be the only one.
    if _CHOICES.match(answer):
        return None  # "YES or NO", "YES / PARTIALLY / NO"
    if direct := _DIRECT.match(answer):
        return _WORDS[direct[1].lower()]
    words = {_WORDS[word.lower()] for word in _WORD.findall(answer)}
    return words.pop() if len(words) == 1 else None


def published_scores(text: str) -> tuple[float, float, float] | None:
    """Entity, background and adherence as the published evaluation reads them: exactly three lines or nothing.

    Whatever is neither YES nor PARTIALLY counts as 0 there; use ``scores`` unless you compare with its numbers.
    """
    lines = text.split("\n")
    labels = [f"{label}: " for label in LABELS.values()]
    if len(lines) != len(labels) or any(label not in line for label, line in zip(labels, lines, strict=True)):
        return None
    words = [line.split(label)[1] for label, line in zip(labels, lines, strict=True)]
    entity, background, text_adherence = (1.0 if w == "YES" else 0.5 if w == "PARTIALLY" else 0.0 for w in words)
    return entity, background, text_adherence
