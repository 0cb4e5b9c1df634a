"""A judge on this machine: any image-text-to-text model of transformers, from a folder or the hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vidgen_core.errors import BadRequest
from vidgen_core.metrics.judge import Answer, Judge, NoAnswer

if TYPE_CHECKING:
    import numpy as np


def build(path: str | None, device: str, dtype: str, **judging: Any) -> Judge:
    """The judge that ``judge=transformers`` names; see ``conf/judge/transformers.yaml`` for the keys."""
    if not path:
        raise BadRequest("judge=transformers needs a vision-language model: judge.path=<folder or hub id>.")
    return Judge(LocalModel.load(path, device, dtype), **judging)


class LocalModel:
    """A loaded model with its processor; it answers without chance."""

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        self.name = name
        self._model = model
        self._processor = processor

    @classmethod
    def load(cls, path: str, device: str = "auto", dtype: str = "auto") -> LocalModel:
        """From a folder or hub id. Raises BadRequest for what cannot be loaded, with the reason."""
        import torch
        import transformers

        from vidgen_core.models.loading import located, quiet
        from vidgen_core.placement import device_and_dtype

        where, number_format = device_and_dtype({"device": device, "dtype": dtype})
        folder = located(path)
        source = str(folder) if folder.is_dir() else path
        key = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
        try:
            with quiet():
                model = transformers.AutoModelForImageTextToText.from_pretrained(source, **{key: number_format})
                processor = transformers.AutoProcessor.from_pretrained(source)
        except Exception as error:  # OSError, ValueError, ImportError: transformers raises many kinds
            reason = " ".join(str(error).split())[:300]
            raise BadRequest(
                f"judge.path={path} cannot be loaded as a vision-language model ({type(error).__name__}: {reason})."
            ) from error
        if not getattr(processor, "chat_template", None):
            raise BadRequest(f"judge.path={path} has no chat template, so it cannot be asked. Choose a chat model.")
        with torch.inference_mode():
            return cls(path, model.to(where).eval(), processor)

    def answer(self, parts: Sequence[str | np.ndarray], most_tokens: int) -> Answer:
        """One answer, the likeliest word at every place. Raises NoAnswer where this message is too much."""
        import torch

        try:
            with torch.inference_mode():
                return self._answered(parts, most_tokens)
        except (RuntimeError, ValueError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            reason = " ".join(str(error).split())[:300]
            raise NoAnswer(f"{type(error).__name__}: {reason}") from error

    def _answered(self, parts: Sequence[str | np.ndarray], most_tokens: int) -> Answer:
        from PIL import Image

        content: list[dict[str, Any]] = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image", "image": Image.fromarray(part)}
            for part in parts
        ]
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._model.device)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        tokens = self._model.generate(**inputs, max_new_tokens=most_tokens, do_sample=False)
        given = inputs["input_ids"].shape[1]
        said = self._processor.batch_decode(tokens[:, given:], skip_special_tokens=True)[0]
        written = tokens.shape[1] - given
        return Answer(said, given, written, cut=written >= most_tokens)
