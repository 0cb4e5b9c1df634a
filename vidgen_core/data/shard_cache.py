"""Where shards lie: on the local disk, or on a server, of which as many are copied as a folder may hold."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlparse

from vidgen_core.data.epochs import Broken
from vidgen_core.errors import BadRequest

SCHEMES = ("http", "https", "gs", "hf")
"""What webdataset fetches by programs of its choice: curl, or gsutil."""


def is_remote(shard: str) -> bool:
    """Whether a shard, or a pattern of their names, lies on a server."""
    return urlparse(shard).scheme in SCHEMES


def base_name(shard: str) -> str:
    """The last part of a path or an address, without what may be secret behind it."""
    return PurePosixPath(urlparse(shard).path).name if is_remote(shard) else Path(shard).name


class ShardCache:
    """Copies of remote shards in ``<folder>/shards``, which all processes of a machine share.

    What was not used for longest goes first. One process fetches at a time, so that none takes away what another needs.
    A shard's address stands for its content: what changed on the server is not seen.

    Args:
        folder: Also holds the indices of shards; None where all lie on the local disk.
        gigabytes: That the copies may take, 10^9 bytes each.
    """

    def __init__(self, folder: str | None = None, gigabytes: float = 100.0) -> None:
        if gigabytes <= 0:
            raise BadRequest(f"data.shard_cache_gb={gigabytes:g} holds nothing. Give gigabytes above 0.")
        self.folder = None if folder is None else Path(folder).expanduser()
        self.size = int(gigabytes * 1e9)

    def open(self, shard: str) -> BinaryIO:
        """A shard at its beginning. Raises OSError where it is gone, Broken where it cannot be fetched."""
        if not is_remote(shard):
            return Path(shard).open("rb")
        if self.folder is None:
            raise BadRequest(
                f"'{base_name(shard)}' lies on a server. Give a folder for copies: data.shard_cache=... and "
                "data.shard_cache_gb=..., what they may take of the disk."
            )
        with suppress(FileNotFoundError):
            return _used(self.folder / "shards" / _copy_name(shard))
        return self._fetched(shard, self.folder)

    def _fetched(self, shard: str, folder: Path) -> BinaryIO:
        from filelock import FileLock
        from webdataset.cache import FileCache

        copies = folder / "shards"
        copies.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            files = FileCache(
                str(copies), url_to_name=_copy_name, validator=None, cache_size=self.size, cache_cleanup_interval=None
            )
            try:
                files.get_file(shard)
            except Exception as error:  # no such host or file, no program to fetch with, a full disk
                for rest in copies.glob(f"{_copy_name(shard)}.temp*"):
                    rest.unlink()
                reason = " ".join(str(error).split())[:160].replace(shard, base_name(shard))
                raise Broken(f"its shard cannot be fetched ({type(error).__name__}: {reason})") from error
            opened = _used(copies / _copy_name(shard))
            files.cleaner.cleanup()  # an open file stays readable
        return opened


def _copy_name(shard: str) -> str:
    return f"{hashlib.sha256(shard.encode()).hexdigest()[:16]}-{base_name(shard)}"


def _used(file: Path) -> BinaryIO:
    opened = file.open("rb")
    with suppress(FileNotFoundError):  # taken away since, and open nevertheless
        os.utime(file)  # the library goes by the time of the last change
    return opened
