"""What a training left of a method, ``methods/<name>.safetensors``, put into a model and taken out again."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vidgen_core.errors import BadRequest
from vidgen_core.models import loading

if TYPE_CHECKING:
    from vidgen_core.models.backbone import Backbone

DENOISER = "denoiser."
"""Beginning of the names of the denoiser's tensors in the file of a method; the others are the method's own."""

OVER_TIME = ("temp_convs.", "temp_attentions.", "transformer_in.")
"""Parts of the names of what a ``UNet3DConditionModel`` has beside a ``UNet2DConditionModel``."""

BASE = "base"
"""Key of the file's metadata: which model the tensors belong to."""

SCHEDULER = "scheduler"
"""Key of the file's metadata: the scheduler's configuration, as JSON, that the tensors were trained with."""


def is_over_time(name: str) -> bool:
    """Whether a tensor of the denoiser with this name is of a layer that mixes frames."""
    return any(part in name for part in OVER_TIME)


def base_of(backbone: Backbone) -> str:
    """A short name of the denoiser's loaded weights, the same wherever they lie; empty where none were loaded."""
    files = sorted(digest for name, digest in backbone.weights.items() if name.startswith("unet/"))
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16] if files else ""


def tuned_file(tuned: str, method: str) -> Path:
    """The file of a method in a finished training's folder, or the file that was named itself.

    Raises BadRequest where it is not there.
    """
    path = Path(tuned).expanduser()
    if path.is_file():
        return path
    file = path / "methods" / f"{method}.safetensors"
    if not file.is_file():
        others = sorted(f.stem for f in (path / "methods").glob("*.safetensors"))
        what = f"it was tuned with {' and '.join(others)}" if others else "no training was finished there"
        raise BadRequest(f"tuned={tuned} holds nothing that '{method}' learnt: {what}.")
    return file


def weights_of(config: Mapping[str, Any], method: str) -> Path | None:
    """The file of what a method learnt: of ``tuned=``, else ``weights.<method>=``, else the one the model brings.

    None where nobody names one, or ``weights.<method>=null``. Raises BadRequest where the file is not there.
    """
    named = {**(config["model"].get("weights") or {}), **config["weights"]}.get(method)
    if config["tuned"] is not None:
        learnt = {file.stem for file in Path(config["tuned"]).expanduser().glob("methods/*.safetensors")}
        if not named or not learnt or method in learnt:  # else the training was another method's
            return tuned_file(config["tuned"], method)
    if named is None:
        return None
    file = loading.located(named)
    if not file.is_file():
        raise BadRequest(f"weights.{method}={named}: there is no such file.")
    return file


def read_tensors(file: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a ``.safetensors`` file or of one that torch wrote, and the model they belong to, or "".

    They are on the CPU, mapped from the file and not read: those that nobody touches cost no memory.

    Raises BadRequest for one that is damaged, holds no weights, or is a pickle that would run code.
    """
    try:
        if file.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(file, "pt") as opened:
                metadata = opened.metadata() or {}
                return {key: opened.get_tensor(key) for key in opened.keys()}, metadata.get(BASE, "")  # noqa: SIM118
        # Pickles of torch before 1.6 are no zip and cannot be mapped.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice to its own developers
            found = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # SafetensorError, UnpicklingError, OSError, EOFError: all are files
        raise BadRequest(
            f"'{file}' cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:160]}). It is damaged, "
            "or a pickle that would run code."
        ) from error
    if isinstance(found, Mapping):
        found = found.get("state_dict", found)  # as trainers write them, beside the state of the training
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise BadRequest(f"'{file}' holds no weights: a dictionary of names and tensors was expected.")
    return dict(found), ""


def scheduler_of(file: Path) -> dict[str, Any] | None:
    """The scheduler's configuration that a file says its tensors were trained with; None where it says none.

    Raises BadRequest for one that is damaged.
    """
    if file.suffix != ".safetensors":
        return None
    from safetensors import safe_open

    try:
        with safe_open(file, "pt") as opened:
            said = json.loads((opened.metadata() or {}).get(SCHEDULER) or "null")
    except Exception as error:  # SafetensorError, OSError, ValueError: all are files
        raise BadRequest(f"'{file}' cannot be read ({type(error).__name__}: {error}). It is damaged.") from error
    return said if isinstance(said, dict) else None


def is_of_another(base: str, backbone: Backbone) -> bool:
    """Whether tensors were learnt on the weights of another model than the one that was loaded, as far as is known."""
    return bool(base and base_of(backbone) and base != base_of(backbone))


def check_base(base: str, backbone: Backbone, file: Path) -> None:
    """Raise BadRequest where tensors were learnt on the weights of another model."""
    if is_of_another(base, backbone):
        raise BadRequest(
            f"'{file}' was tuned on another model than the one that was loaded. Give the model of the tuning: model=, "
            "model.path=."
        )


class Exchange:
    """Other values for parameters of a network: ``put`` in place, and afterwards what they were.

    What the parameters are is kept from the beginning, in the main memory: so exchanges that were made in one order and
    are ended in the other leave the network as it was, whenever they put, and a device never holds both.

    Args:
        tensors: Parameter name -> value, on any device; may be mapped from a file.
        source: What errors call them.
        warn: Told where another exchange, not yet ended, has other values for the same parameters.
        owner: The method that learnt them: what a training makes of them is its own again.

    Raises BadRequest for names that the network does not have, or other shapes.
    """

    def __init__(
        self,
        network: nn.Module,
        tensors: Mapping[str, Tensor],
        source: str,
        warn: Callable[[str], None],
        owner: str = "",
    ) -> None:
        own = dict(network.named_parameters())
        wrong = [name for name, tensor in tensors.items() if name not in own or own[name].shape != tensor.shape]
        if wrong:
            raise BadRequest(
                f"'{source}' does not fit the model: {len(wrong)} of {len(tensors)} tensors are unknown or of another "
                f"shape, first '{wrong[0]}'."
            )
        self._parameters = {name: own[name] for name in tensors}
        self._tensors = tensors
        self._before = {name: own[name].detach().to("cpu", copy=True) for name in tensors}
        self._placed = False
        self._source, self._owner = source, owner
        self._exchanges: list[Exchange] = network.__dict__.setdefault("_vidgen_exchanges", [])
        for other in self._exchanges:
            if shared := len(other._parameters.keys() & tensors.keys()):
                warn(
                    f"'{other._source}' and '{source}' both bring {shared} tuned layers of the model; only those of "
                    "the one that is put in place last are used."
                )
        self._exchanges.append(self)

    def put(self) -> bool:
        """Put the other values in place; False where they are already, or there are none."""
        if self._placed or not self._parameters:
            return False
        self._placed = True
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(self._tensors[name])
        return True

    def take_out(self) -> None:
        """Give every parameter the value back that it had."""
        if self in self._exchanges:
            self._exchanges.remove(self)
        if not self._placed:
            return
        self._placed = False
        with torch.no_grad():
            for name, tensor in self._before.items():
                self._parameters[name].copy_(tensor)


def put_by(network: nn.Module, owner: str) -> dict[str, Tensor]:
    """Parameter name -> the value that a method's exchanges put in its place, as it was read."""
    exchanges: list[Exchange] = network.__dict__.get("_vidgen_exchanges", [])
    own = [exchange for exchange in exchanges if exchange._owner == owner and exchange._placed]
    return {name: tensor for exchange in own for name, tensor in exchange._tensors.items()}


@contextmanager
def replaced(
    network: nn.Module,
    tensors: Mapping[str, Tensor],
    source: str,
    warn: Callable[[str], None],
    owner: str = "",
) -> Iterator[None]:
    """Parameters of the network with other values inside the context; see ``Exchange``."""
    exchange = Exchange(network, tensors, source, warn, owner)
    try:
        exchange.put()
        yield
    finally:
        exchange.take_out()
