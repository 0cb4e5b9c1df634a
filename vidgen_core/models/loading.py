"""Reading stock models from diffusers folders or hub ids: nothing missing, nothing unexpected, nothing executed.

Weights are read as safetensors, or as ``torch.load(weights_only=True)`` by the libraries; a pickle that needs more
is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from vidgen_core.errors import BadRequest

PACKAGE = "pkg://"


def resolve(path: str) -> str:
    """A folder, ``pkg://package/folder`` inside an installed package, or a hub id as it is.

    Raises BadRequest for a path that looks like a folder but is none, or holds no model.
    """
    source, folder = found(path), located(path)
    if source is None:
        raise BadRequest(f"There is no model folder '{folder}'. Give a diffusers folder or a hub id 'owner/name'.")
    is_model = (folder / "model_index.json").is_file() or (folder / "unet" / "config.json").is_file()
    if folder.is_dir() and not is_model:
        raise BadRequest(
            f"'{folder}' is not a model: a diffusers folder has model_index.json, or at least unet/config.json."
        )
    return source


def found(path: str) -> str | None:
    """What ``from_pretrained`` is given: the folder, or a hub id as it is; None where neither can be meant."""
    folder = located(path)
    if folder.is_dir():
        return str(folder)
    looks_local = path.startswith((PACKAGE, ".", "/", "~")) or path.count("/") != 1 or folder.exists()
    return None if looks_local else path


def located(path: str) -> Path:
    """Where a path or ``pkg://package/folder`` lies, whether it is there or not."""
    if not path.startswith(PACKAGE):
        return Path(path).expanduser()
    from importlib.resources import files

    package, _, inside = path.removeprefix(PACKAGE).partition("/")
    try:
        return Path(str(files(package).joinpath(inside)))
    except ModuleNotFoundError as error:
        raise BadRequest(f"'{path}' lies in the package '{package}', which is not installed.") from error


def fetched(path: str, *files: str) -> Path:
    """The folder of a model; of a hub id that in the cache, where at least these files of it then lie.

    Args:
        files: Patterns of names.

    Raises:
        BadRequest: as of ``resolve``, and where the hub id cannot be fetched.
    """
    source = resolve(path)
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    try:
        with quiet():
            return Path(snapshot_download(source, allow_patterns=list(files)))
    except Exception as error:  # no hub id, no network, no such repository
        raise BadRequest(_why_not(path, path, error)) from error


def load_component(
    cls: Any,
    path: str,
    subfolder: str,
    dtype: torch.dtype,
    variant: str | None = None,
    unread: tuple[str, ...] = (),
    **options: Any,
) -> Any:
    """One component by its class's own ``from_pretrained``, with every tensor accounted for.

    Args:
        subfolder: Empty where the files lie in the folder itself.
        unread: Beginnings of names that the files may hold beside the component's own.
        options: Further arguments of ``from_pretrained``.

    Raises:
        BadRequest: when files are missing, truncated, pickled code, or names and shapes do not fit; all are named.
    """
    name = f"{path}/{subfolder}".rstrip("/")
    variants = [variant, None] if variant and _has_variant(path, subfolder, variant) else [None]
    for attempt in variants:
        keywords = options | ({"variant": attempt} if attempt else {})
        dtype_key = (
            "dtype" if cls.__module__.startswith("transformers") and _transformers_major() >= 5 else "torch_dtype"
        )
        try:
            with quiet():
                model, info = cls.from_pretrained(
                    path, subfolder=subfolder, output_loading_info=True, **{dtype_key: dtype}, **keywords
                )
        except Exception as error:  # OSError, SafetensorError, UnpicklingError, ValueError, json errors: all are files
            if attempt:
                continue
            raise BadRequest(_why_not(name, path, error)) from error
        break
    info["unexpected_keys"] = [key for key in info["unexpected_keys"] if not key.startswith(unread)]
    _account(name, info)
    return model.eval()


def small_parts(path: str) -> dict[str, Any]:
    """Scheduler configuration and tokenizer, as a backbone takes them: read first, so that what is wrong with them is
    told before gigabytes are read."""
    return {"scheduler_config": read_scheduler_config(path), "tokenizer": load_tokenizer(path)}


def large_parts(path: str, dtype: torch.dtype, variant: str | None = None) -> dict[str, Any]:
    """VAE, text encoder and the hashes of all weights, as a backbone takes them beside its network."""
    from diffusers import AutoencoderKL

    return {
        "vae": load_component(AutoencoderKL, path, "vae", dtype, variant),
        "text_encoder": load_text_encoder(path, dtype, variant),
        "weights": hashes(path, variant),
    }


def load_text_encoder(path: str, dtype: torch.dtype, variant: str | None = None) -> Any:
    """The CLIP text encoder, from files with or without the ``text_model.`` prefix (transformers 4 and 5 differ)."""
    from transformers import CLIPTextConfig, CLIPTextModel

    try:
        return load_component(CLIPTextModel, path, "text_encoder", dtype, variant)
    except BadRequest:
        file = Path(path) / "text_encoder" / "model.safetensors"
        if not file.is_file():
            raise
        # transformers 4 does not find names without the prefix by itself.
        try:
            state = with_prefix_of(CLIPTextModel, load_file(file))
        except Exception:
            state = None
        if state is None:
            raise
        config = CLIPTextConfig.from_pretrained(path, subfolder="text_encoder")
        model = CLIPTextModel(config).to(dtype)
        missing, unexpected = model.load_state_dict(state, strict=False)
        _account(f"{path}/text_encoder", {"missing_keys": missing, "unexpected_keys": unexpected})
        return model.eval()


def load_tokenizer(path: str) -> Any:
    """The tokenizer of a model folder or hub id. Raises BadRequest where it cannot be read."""
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(path, subfolder="tokenizer")
    except Exception as error:  # transformers raises many kinds here
        raise BadRequest(f"The tokenizer in '{path}/tokenizer' cannot be read: {error}") from error


def picture_processor(name: str) -> Any:
    """An image processor's class of transformers that needs no torchvision: it has a name of its own since 5."""
    import transformers

    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


def with_prefix_of(cls: Any, state: Mapping[str, torch.Tensor], prefix: str = "text_model.") -> dict[str, torch.Tensor]:
    """A text encoder's tensors under the names that ``cls`` of the installed transformers uses."""
    with torch.device("meta"):
        wants = any(name.startswith(prefix) for name in cls(cls.config_class()).state_dict())
    bare = {name.removeprefix(prefix): tensor for name, tensor in state.items() if not name.endswith("position_ids")}
    return {prefix + name: tensor for name, tensor in bare.items()} if wants else bare


def check_layout(model: torch.nn.Module, shapes: Mapping[str, Any], name: str) -> None:
    """Raise BadRequest, naming every key, unless a checkpoint's names and shapes are exactly the model's."""
    check_names({key: list(tensor.shape) for key, tensor in model.state_dict().items()}, shapes, name)


def check_names(own: Mapping[str, Any], shapes: Mapping[str, Any], name: str) -> None:
    """As ``check_layout``, for the names and shapes of a model that is stored under other names than its own."""
    _account(
        name,
        {
            "missing_keys": [key for key in own if key not in shapes],
            "unexpected_keys": [key for key in shapes if key not in own],
            "mismatched_keys": [
                (key, list(shape), own[key]) for key, shape in shapes.items() if key in own and own[key] != list(shape)
            ],
        },
    )


def hashes(path: str, variant: str | None = None) -> dict[str, str]:
    """Relative name -> sha256 of every weight file of a model folder, or of a hub id's files in the cache, that is read
    when this variant is asked for; other variants beside them tell nothing of the model."""
    folder = Path(path) if Path(path).is_dir() else cached_folder(path)
    if folder is None:
        return {}
    parts = sorted({config.parent for config in folder.glob("*/config.json")} | {folder})
    return {str(file.relative_to(folder)): file_hash(file) for part in parts for file in weight_files(part, variant)}


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The files that ``from_pretrained`` reads a component's weights from, several where they are split.

    Those of the variant where there are any, else the plain ones; safetensors rather than what torch wrote.
    """
    for wanted in dict.fromkeys((variant or "", "")):
        for suffix in (".safetensors", ".bin"):
            files = sorted(file for file in folder.glob(f"*{suffix}") if _variant_of(file) == wanted)
            if files:
                return files
    return []


def _variant_of(file: Path) -> str:
    # fp16 of model.fp16.safetensors, and of its parts model.fp16-00001-of-00002 or model-00001-of-00002.fp16.
    return re.sub(r"-\d+-of-\d+", "", file.stem).partition(".")[2]


def cached_folder(path: str) -> Path | None:
    """Where the files of a hub id lie in the cache; None where they were not downloaded."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for file in ("model_index.json", "config.json", "unet/config.json"):  # the parts are fetched one by one
        try:
            cached = try_to_load_from_cache(path, file)
        except HFValidationError:  # no hub id
            return None
        if isinstance(cached, str):
            return Path(cached).parents[file.count("/")]
    return None


def file_hash(file: Path) -> str:
    """The sha256 of a file of any size. Raises OSError where it cannot be read."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while chunk := handle.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def read_scheduler_config(path: str) -> dict[str, Any]:
    """The checkpoint's scheduler configuration, as it was written: only keys that the file has."""
    file = Path(path) / "scheduler" / "scheduler_config.json"
    if Path(path).is_dir():
        if not file.is_file():
            raise BadRequest(
                f"The model folder '{path}' has no scheduler/scheduler_config.json; copy it from the original."
            )
    else:
        from huggingface_hub import hf_hub_download

        try:
            with quiet():
                file = Path(hf_hub_download(path, "scheduler/scheduler_config.json"))
        except Exception as error:  # no network, no such repository, no such file
            raise BadRequest(_why_not(f"{path}/scheduler", path, error)) from error
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise BadRequest(f"'{file}' is damaged: {error}. Copy it from the original.") from error
    if not isinstance(config, dict):
        raise BadRequest(f"'{file}' holds no scheduler configuration. Copy it from the original.")
    return config


def pipeline_of(path: str) -> str | None:
    """The pipeline class that a model folder names; None where it has no index, or is a hub id."""
    file = Path(path) / "model_index.json"
    return str(json.loads(file.read_text()).get("_class_name")) if file.is_file() else None


def _account(name: str, info: Mapping[str, Any]) -> None:
    parts = []
    for kind, label in (
        ("missing_keys", "missing"),
        ("unexpected_keys", "unexpected"),
        ("mismatched_keys", "of another shape"),
        ("error_msgs", "unreadable"),
    ):
        keys = [str(key) for key in info.get(kind) or [] if not str(key).endswith("position_ids")]
        if keys:
            shown = ", ".join(keys[:5]) + (f", and {len(keys) - 5} more" if len(keys) > 5 else "")
            parts.append(f"{len(keys)} {label}: {shown}")
    if parts:
        raise BadRequest(f"The weights in '{name}' do not fit the model: {'; '.join(parts)}.")


def _why_not(name: str, path: str, error: Exception) -> str:
    text = " ".join(str(error).split())
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    if any(word in str(cause).lower() for cause in causes for word in ("weights_only", "weights only", "unpickl")):
        mend = "It is a pickle that would run code on loading; ask its author for safetensors."
    elif Path(path).is_dir():
        mend = "The files are missing, truncated or damaged; copy the folder again."
    else:
        mend = "It is no folder here; as a hub id it could not be fetched. Check the name and the network."
    return f"The model '{name}' cannot be read ({type(error).__name__}: {text[:200]}). {mend}"


def _has_variant(path: str, subfolder: str, variant: str) -> bool:
    folder = Path(path) / subfolder
    return not Path(path).is_dir() or any(folder.glob(f"*.{variant}.*"))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the libraries' bars, advice and accounts of errors that we tell in one paragraph."""
    import diffusers.utils.logging as of_diffusers
    import transformers.utils.logging as of_transformers
    from huggingface_hub.utils import logging as of_the_hub

    before = of_diffusers.get_verbosity(), of_transformers.get_verbosity(), of_the_hub.get_verbosity()
    bars = of_transformers.is_progress_bar_enabled()
    of_diffusers.set_verbosity(logging.CRITICAL)
    of_transformers.set_verbosity(logging.CRITICAL)
    of_the_hub.set_verbosity(logging.CRITICAL)
    of_transformers.disable_progress_bar()
    try:
        yield
    finally:
        of_diffusers.set_verbosity(before[0])
        of_transformers.set_verbosity(before[1])
        of_the_hub.set_verbosity(before[2])
        if bars:
            of_transformers.enable_progress_bar()


def _transformers_major() -> int:
    import transformers

    return int(transformers.__version__.split(".")[0])
