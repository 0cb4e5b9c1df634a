"""Writing a backbone as a diffusers folder that every supported version of the libraries reads."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from vidgen_core.models.loading import quiet

if TYPE_CHECKING:
    from vidgen_core.models.backbone import Backbone

TOKENIZER_CLASS = "PreTrainedTokenizerFast"


def save_backbone(backbone: Backbone, folder: Path, dtype: torch.dtype) -> None:
    """Write weights as safetensors in ``dtype``, tokenizer, scheduler and ``model_index.json`` to a new folder.

    The scheduler's file is the checkpoint's own, key for key: a key that was not there before would change which
    defaults another scheduler takes.
    """
    folder.mkdir(parents=True)
    index: dict[str, Any] = {"_class_name": backbone.pipeline}
    for name, part in {"unet": backbone.denoiser, "vae": backbone.vae, "text_encoder": backbone.text_encoder}.items():
        if part is not None:
            before = next(part.parameters()).dtype
            with quiet():
                nn.Module.to(part, dtype).save_pretrained(folder / name)
            nn.Module.to(part, before)
            _forget_origin(folder / name / "config.json")
            index[name] = [type(part).__module__.partition(".")[0], type(part).__name__]
    if backbone.text_encoder is not None:
        _with_prefix(folder / "text_encoder" / "model.safetensors")
    if backbone.tokenizer is not None:
        save_tokenizer(backbone.tokenizer, folder / "tokenizer")
        index["tokenizer"] = ["transformers", TOKENIZER_CLASS]
    if backbone.scheduler_config:
        (folder / "scheduler").mkdir()
        _write_json(folder / "scheduler" / "scheduler_config.json", backbone.scheduler_config)
        index["scheduler"] = ["diffusers", backbone.scheduler_config.get("_class_name", "DDIMScheduler")]
    _write_json(folder / "model_index.json", index)


def _forget_origin(file: Path) -> None:
    # Where the weights once lay on some machine is nobody's business who gets the folder.
    content = json.loads(file.read_text())
    _write_json(file, {key: value for key, value in content.items() if key != "_name_or_path"})


def _with_prefix(file: Path) -> None:
    # The prefix of CLIPTextModel before transformers 5, which reads it as well.
    state = {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in load_file(file).items()}
    save_file(state, file, metadata={"format": "pt"})


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Free of the padding of its last use, under a class name that all versions of transformers know."""
    clean = copy.deepcopy(tokenizer)
    if hasattr(clean, "backend_tokenizer"):
        clean.backend_tokenizer.no_padding()
        clean.backend_tokenizer.no_truncation()
    clean.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text())
    if content.get("tokenizer_class") in (None, "TokenizersBackend"):
        content["tokenizer_class"] = TOKENIZER_CLASS
    for key in ("is_local", "local_files_only", "name_or_path"):
        content.pop(key, None)
    _write_json(file, content)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
