"""A judge behind any endpoint that speaks OpenAI's chat completions, with the standard library's HTTP client."""

from __future__ import annotations

import base64
import io
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from vidgen_core.errors import BadRequest
from vidgen_core.metrics.judge import Answer, Forbidden, Judge, NoAnswer

if TYPE_CHECKING:
    import numpy as np

PASSING = (408, 409, 429, 500, 502, 503, 504, 529)
"""Statuses after which the same question may be answered later."""
LONGEST_WAIT = 120.0
"""Seconds between two tries, whatever the endpoint asks for."""


def build(
    model: str | None,
    url: str,
    key_variable: str,
    timeout: float,
    retries: int,
    per_minute: float,
    **judging: Any,
) -> Judge:
    """The judge that ``judge=openai`` names; see ``conf/judge/openai.yaml`` for the keys."""
    if not model:
        raise BadRequest("judge=openai needs the name of a model that sees images: judge.model=...")
    if not url.startswith(("http://", "https://")):
        raise BadRequest(f"judge.url={url} is no address; it begins with http:// or https:// and often ends in /v1.")
    key = os.environ.get(key_variable, "") if key_variable else ""
    if key_variable and not key:
        raise BadRequest(
            f"The environment variable {key_variable}, which holds the judge's key, is not set. Set it, name another "
            "with judge.key_variable=..., or write judge.key_variable= for an endpoint without keys."
        )
    return Judge(Endpoint(model, url, key, timeout, retries, per_minute), **judging)


class Endpoint:
    """Asks ``<url>/chat/completions``; waits as it is told, and asks again after failures that pass.

    Args:
        retries: Tries after the first.
        per_minute: Questions a minute at the most; 0 is without a limit.
        sleep, clock: For tests.
    """

    def __init__(
        self,
        model: str,
        url: str,
        key: str = "",
        timeout: float = 120.0,
        retries: int = 4,
        per_minute: float = 0.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = model
        self._url = f"{url.rstrip('/')}/chat/completions"
        self._key = key
        self._timeout = timeout
        self._retries = retries
        self._pause = 60 / per_minute if per_minute else 0.0
        self._sleep, self._clock = sleep, clock
        self._free_at = 0.0
        self._limit, self._tempered = "max_tokens", True  # what this endpoint takes, once it has said so

    def answer(self, parts: Sequence[str | np.ndarray], most_tokens: int) -> Answer:
        """One answer. Raises NoAnswer after the last try, BadRequest for what no later question would mend."""
        message = {"role": "user", "content": [_content(part) for part in parts]}
        reason, wait, attempt = "", None, 0
        while attempt <= self._retries:
            tempered = {"temperature": 0} if self._tempered else {}
            self._wait_for_turn()
            try:
                return _answer_in(
                    self._post({"model": self.name, "messages": [message], self._limit: most_tokens, **tempered})
                )
            except urllib.error.HTTPError as error:
                said = " ".join(error.read(2000).decode("utf-8", "replace").split())[:300]
                if self._corrected(error.code, said):
                    continue
                if error.code in (401, 403, 404):
                    kind = Forbidden if error.code == 403 else BadRequest
                    raise kind(_refusal(self._url, self.name, error.code, said)) from error
                reason, wait = f"status {error.code}: {said}", _seconds(error.headers.get("Retry-After"))
                if error.code not in PASSING:
                    break
            except (OSError, HTTPException, ValueError) as error:  # URLError and timeouts are OSErrors; bad JSON
                reason, wait = f"{type(error).__name__}: {error}", None
            if attempt < self._retries:
                self._sleep(min(wait if wait is not None else 2.0**attempt, LONGEST_WAIT))
            attempt += 1
        raise NoAnswer(reason or "it did not take the question")

    def _corrected(self, code: int, said: str) -> bool:
        """Whether the endpoint refused a key of the question that can be left out, which it then is from now on."""
        if "max_completion_tokens" in said and self._limit == "max_tokens":
            self._limit = "max_completion_tokens"  # newer models of some providers know only this name for the limit
            return True
        if "temperature" in said and code == 400 and self._tempered:
            self._tempered = False
            return True
        return False

    def _wait_for_turn(self) -> None:
        left = self._free_at - self._clock()
        if left > 0:
            self._sleep(left)
        self._free_at = self._clock() + self._pause

    def _post(self, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=self._timeout) as response:
            return json.loads(response.read())


def _content(part: str | np.ndarray) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(part).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def _answer_in(reply: Any) -> Answer:
    try:
        choice = reply["choices"][0]
        text, cut = choice["message"]["content"], choice.get("finish_reason") == "length"
        usage = reply.get("usage") or {}
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"the reply holds no answer: {str(reply)[:200]}") from error
    if isinstance(text, list):  # some servers answer in parts
        text = "".join(part.get("text", "") for part in text if isinstance(part, dict))
    return Answer(str(text or ""), int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0), cut)


def _refusal(url: str, model: str, code: int, said: str) -> str:
    about = {401: "does not accept the key", 403: "forbids it", 404: "does not know the address or the model"}[code]
    return f"The judge at {url} {about} (status {code}: {said}). Check judge.url, judge.model={model} and the key."


def _seconds(value: str | None) -> float | None:
    try:
        return max(float(value), 0.0) if value else None
    except ValueError:
        return None  # a date; the usual waiting will do
