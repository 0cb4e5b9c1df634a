"""What vidgen stands on: packages, devices, attention kernels, video, room, weights and plugins, each tried.

A check yields findings. One that is wrong stops the ordinary work and says how it is mended; one that is noted costs
speed or an option only.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from vidgen_core.catalog import Option
from vidgen_core.errors import BadRequest
from vidgen_core.plugin import Found, catalog_of, discover

OK, NOTE, WRONG = "ok", "note", "wrong"

LITTLE, SCARCE = 1 << 28, 10 << 30
"""Bytes free: below the first no run can be counted on to finish, below the second no large model fits in a cache."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    state: str  # OK, NOTE or WRONG
    what: str
    mend: str = ""


def checks() -> dict[str, Callable[[], Iterator[Finding]]]:
    """Title -> check, in the order in which one builds on another."""
    found = discover()
    return {
        "Packages": lambda: packages(metadata.requires("vidgen") or [], _extras()),
        "Devices": devices,
        "Attention": attention,
        "Video": video,
        "Room": room,
        "Weights": lambda: weights(catalog_of(found)),
        "Plugins": lambda: plugins(found),
    }


def packages(requirements: Iterable[str], extras: Iterable[str] = ()) -> Iterator[Finding]:
    """Each required package, and of the extras those that are there; ``requirements`` as in a package's metadata."""
    from packaging.requirements import Requirement

    yield Finding(OK, f"python {platform.python_version()}")
    absent: dict[str, list[str]] = {}
    for requirement in map(Requirement, requirements):
        marker, wanted = requirement.marker, f"{requirement.name}{requirement.specifier}"
        required = marker is None or marker.evaluate({"extra": ""})
        extra = None if required or marker is None else next((e for e in extras if marker.evaluate({"extra": e})), None)
        if not required and extra is None:
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if extra is not None:
                absent.setdefault(extra, []).append(requirement.name)
            else:
                yield Finding(WRONG, f"{requirement.name} is not installed", f"pip install '{wanted}'")
            continue
        if requirement.specifier.contains(version, prereleases=True):
            within = f" ({requirement.specifier})" * bool(requirement.specifier)
            yield Finding(OK, f"{requirement.name} {version}{within}")
        else:
            about = f"{requirement.name} {version} is not {requirement.specifier}"
            yield Finding(NOTE if extra else WRONG, about, f"pip install '{wanted}'")
    for extra, names in absent.items():
        yield Finding(NOTE, f"without {', '.join(names)}", f"pip install 'vidgen[{extra}]' where it is needed")


def _extras() -> list[str]:
    return [extra for extra in metadata.metadata("vidgen").get_all("Provides-Extra") or [] if extra != "dev"]


def devices() -> Iterator[Finding]:
    """The GPUs that torch can use, by running something on each."""
    try:
        import torch
    except Exception as error:  # a torch whose libraries do not fit raises OSError, among others
        yield Finding(WRONG, f"torch cannot be imported: {_line(error)}", "install the build of torch for this machine")
        return
    yield Finding(OK, f"CPU, {torch.get_num_threads()} threads")
    build = torch.version.cuda or torch.version.hip
    if not torch.cuda.is_available():
        if shutil.which("nvidia-smi") and not build:
            yield Finding(NOTE, "an NVIDIA driver, but torch is built for CPUs only", "install torch's CUDA build")
        elif build:
            yield Finding(
                NOTE, f"torch is built for {build}, but sees no GPU", "update the driver, or see CUDA_VISIBLE_DEVICES"
            )
        else:
            yield Finding(NOTE, "no CUDA device; everything runs on the CPU")
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        name = f"cuda:{index} {properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {build}"
        try:
            torch.ones(8, 8, device=f"cuda:{index}").matmul(torch.ones(8, 8, device=f"cuda:{index}")).sum().item()
        except RuntimeError as error:
            yield Finding(WRONG, f"{name}: {_line(error)}", "placement.device=cpu, or a torch built for this GPU")
        else:
            yield Finding(OK, name)


def attention() -> Iterator[Finding]:
    """Each kernel, by calling it: to import one is not to have its operators."""
    import torch

    from vidgen_core.attention import BACKENDS, backend

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    for name in BACKENDS:
        try:
            backend(name, device, dtype)
        except BadRequest as error:
            yield Finding(NOTE, str(error))
        else:
            yield Finding(OK, f"attention={name} on {device.type}")


def video() -> Iterator[Finding]:
    """A video written and read again, by PyAV and by decord."""
    import numpy as np

    from vidgen_core.video import VideoReader
    from vidgen_core.video_writer import VideoWriter

    frames = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        try:
            writer = VideoWriter(path, fps=8)
            writer.write(frames)
            writer.close()
            read = VideoReader(path, "pyav").frames(range(4))
        except Exception as error:  # FFmpeg's libraries fail in many ways
            mend = "pip install --force-reinstall --only-binary av av: its wheels carry libx264"
            yield Finding(WRONG, f"PyAV cannot write and read H.264: {_line(error)}", mend)
            return
        yield Finding(OK, "PyAV writes H.264 (libx264) and reads it")
        try:
            import decord

            same = np.array_equal(decord.VideoReader(str(path), num_threads=1).get_batch(range(4)).asnumpy(), read)
        except Exception as error:
            yield Finding(NOTE, f"decord does not read it: {_line(error)}. PyAV reads the same frames")
            return
        if same:
            yield Finding(OK, "decord reads the same frames")
        else:
            yield Finding(WRONG, "decord reads other frames than PyAV", "pip uninstall decord")


def room() -> Iterator[Finding]:
    """Whether there is room for runs here and for models in the hub's cache, and both can be written."""
    from huggingface_hub.constants import HF_HUB_CACHE

    enough = {"runs": (Path.cwd(), LITTLE, "output.root"), "models": (Path(HF_HUB_CACHE), SCARCE, "HF_HOME")}
    for what, (place, least, key) in enough.items():
        folder = next(parent for parent in (place, *place.parents) if parent.is_dir())
        free = shutil.disk_usage(folder).free
        about = f"{what}: {place}, {free / 2**30:.1f} GiB free"
        elsewhere = f"{key}=<another folder>"
        if not os.access(folder, os.W_OK):
            yield Finding(WRONG if what == "runs" else NOTE, f"{about}, not to be written", elsewhere)
        elif free < least:
            yield Finding(WRONG if free < LITTLE else NOTE, about, f"free some space, or {elsewhere}")
        else:
            yield Finding(OK, about)


def weights(catalog: Mapping[str, Mapping[str, Option]]) -> Iterator[Finding]:
    """Which models work without a network: embedded ones, folders, and those in the hub's cache."""
    from vidgen_core.models.loading import cached_folder, found, located

    for name, option in catalog["model"].items():
        written = {key: option.value(key) for key in option.keys if _names_weights(key)}
        paths = {key: path for key, path in written.items() if path}
        absent = [path for path in paths.values() if not (located(path).exists() or cached_folder(path))]
        lost = [path for path in absent if found(path) is None]
        if lost:
            yield Finding(WRONG, f"model={name}: {lost[0]} is not there", "reinstall the package that brings it")
        elif "path" in written and not written["path"]:
            also = f"; {', '.join(absent)} downloads on first use" * bool(absent)
            yield Finding(NOTE, f"model={name} needs a file of yours, model.path=...{also}")
        elif absent:
            yield Finding(NOTE, f"model={name} is not here: {', '.join(absent)} downloads on first use")
        else:
            yield Finding(OK, f"model={name}")


def _names_weights(key: str) -> bool:
    return key in ("path", "parts", "image_encoder") or key.startswith(("weights.", "method_paths."))


def plugins(found: Mapping[str, Found]) -> Iterator[Finding]:
    """Which plugins can be used, and why others cannot."""
    for name, entry in found.items():
        about = f"{name}, of {entry.distribution} {entry.version}"
        if entry.plugin is not None:
            yield Finding(OK, about)
        else:
            mend = f"`vidgen list --why {name}` shows where"
            yield Finding(WRONG, f"{about}: {entry.error}", mend)


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
