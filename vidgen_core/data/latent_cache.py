"""What the VAE made of a piece of data, kept on disk: each is encoded once in all trainings that share a folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from vidgen_core.errors import VidgenError

if TYPE_CHECKING:
    from torch import Tensor

NAME = "moments"


def cache_key(*parts: Any) -> str:
    """A file name for what ``parts`` identify: plain values whose ``repr`` says all that the pixels depend on."""
    return hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def file_identity(path: Path) -> tuple[str, int, int]:
    """What tells one state of a file from another: path, size in bytes, time of change in ns. Raises OSError."""
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


def save_whole(tensors: dict[str, Tensor], path: Path) -> None:
    """Write safetensors that appear whole or not at all, whatever ends the process and whoever else writes them.

    Raises OSError or SafetensorError where they cannot be written, and leaves nothing.
    """
    from safetensors.torch import save_file

    fresh = path.with_name(f".{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, fresh)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


class LatentCache:
    """Moments by key, a file each: half precision, safetensors. Many processes may share one folder.

    Args:
        folder: Where caches of all models lie.
        model_hash: What tells this VAE from others; its moments lie in a folder of that name.
    """

    def __init__(self, folder: str | Path, model_hash: str) -> None:
        self.folder = Path(folder).expanduser() / model_hash

    def path(self, key: str) -> Path:
        """The file of a key; 256 folders keep each of them short."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, key: str) -> Tensor | None:
        """Moments (F, 2 C, h, w) in float16 on the CPU, or None: never kept, or what is there cannot be read."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            moments = load_file(self.path(key))[NAME]
        except (OSError, SafetensorError, KeyError):
            return None
        return moments if moments.ndim == 4 and moments.shape[1] % 2 == 0 else None

    def put(self, key: str, moments: Tensor) -> None:
        """Keep moments (F, 2 C, h, w): mean and log-variance. What half precision cannot hold is not kept.

        The file appears whole or not at all, whatever ends the process. Raises VidgenError where it cannot be written.
        """
        half = moments.detach().half().cpu().contiguous()
        if not half.isfinite().all():
            return
        try:
            save_whole({NAME: half}, self.path(key))
        except Exception as error:  # OSError, or safetensors' own error for a full disk
            reason = getattr(error, "strerror", None) or error
            raise VidgenError(
                f"The latent cache '{self.folder}' cannot be written: {reason}. Free some space, give another "
                f"trainer.cache_dir, or train without: trainer.cache=none."
            ) from error

    def moments(self, keys: Sequence[str], frames: Sequence[int]) -> Tensor | None:
        """The moments of several pieces one after the other along F, or None unless all are kept.

        Args:
            frames: How many frames each piece has; what is kept with another number counts as damaged.
        """
        import torch

        parts: list[Tensor] = []
        for key, count in zip(keys, frames, strict=True):
            part = self.get(key)
            if part is None or len(part) != count or part.shape[1:] != (parts or [part])[0].shape[1:]:
                return None
            parts.append(part)
        return torch.cat(parts) if parts else None
