"""Images and videos trained together: the kinds of samples that one network can learn from, with and without text.

A kind says what a sample shows and under which conditions: an image may be told by its caption or by itself, a video
without a caption by an image of it, a captioned one by both. Each step shows one kind (``mixture``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from vidgen_core.data.buckets import in_buckets
from vidgen_core.data.folder import Folder
from vidgen_core.data.image_maps import ImageMaps
from vidgen_core.data.mixture import Mixture, Part
from vidgen_core.data.pixels import size_of
from vidgen_core.data.sample import Source
from vidgen_core.data.shards import Shards
from vidgen_core.errors import BadRequest, nearest

TOLD = {
    "text_to_image": ("text",),
    "image_to_image": ("image",),
    "image_to_video": ("image",),
    "text_image_to_video": ("text", "image"),
}
"""Kind -> the conditions that its samples are trained under."""

NEEDED = {
    "text_to_image": "images",
    "image_to_image": "images",
    "image_to_video": "videos",
    "text_image_to_video": "labelled_videos",
}
"""Kind -> the key of the data that it shows."""

UNCAPTIONED = {
    "images": "data.shares.text_to_image=0 trains on images without",
    "labelled_videos": "data.videos=... takes videos without",
}
"""Key of captioned data -> what to do where there are no captions."""

SHARES = {"text_to_image": 0.5, "image_to_image": 0.5, "image_to_video": 1.0, "text_image_to_video": 1.0}
"""Kind -> how often steps show it, relative to the others: images as often as videos without text."""


def joined(sources: Mapping[str, Mapping[str, Source]], shares: Mapping[str, float], images_per_video: int) -> Mixture:
    """The kinds as one source, of which every step shows one.

    Args:
        sources: Kind -> name -> where its samples come from; several, such as sizes, take turns as often as they have
            samples.
        shares: Kind -> how often steps show it, relative to the others.
        images_per_video: Images that stand for one of ``trainer.batch_size``.

    Raises:
        BadRequest: an unknown kind, or nothing is left.
    """
    for kind in shares:
        if kind not in TOLD:
            raise BadRequest(f"data.shares.{kind}: there is no such kind.{nearest(kind, TOLD)}")
    parts = {}
    for kind, several in sources.items():
        times = images_per_video if kind.endswith("image") else 1
        total = sum(len(source) or 1 for source in several.values())
        for name, source in several.items():
            share = shares.get(kind, 0.0) * ((len(source) or 1) / total)
            parts[f"{kind} {name}".strip()] = Part(source, share, TOLD[kind], times, kind)
    return Mixture(parts)


def from_files(
    images: str | None = None,
    videos: str | None = None,
    labelled_videos: str | None = None,
    image_maps: Mapping[str, str] = MappingProxyType({}),
    validation_images: str | None = None,
    validation_videos: str | None = None,
    validation_labelled_videos: str | None = None,
    frames: int = 16,
    stride: int = 1,
    fps: float | None = None,
    start: str = "random",
    short: str = "skip",
    size: int | Sequence[int] = 256,
    sizes: Sequence[int | Sequence[int]] | None = None,
    bucketing: bool = False,
    crop: str = "resize_center",
    shuffle: bool = True,
    shares: Mapping[str, float] = SHARES,
    images_per_video: int = 8,
    shard_cache: str | None = None,
    shard_cache_gb: float = 100.0,
) -> Mixture:
    """Images, videos whose captions nobody reads, and captioned videos, each a folder, a list or WebDataset shards.

    Args:
        image_maps: Condition -> folder with a map for every image, see ``ImageMaps``.
        validation_images, validation_videos, validation_labelled_videos: The same, held out for validation.
        sizes: Several sizes; every step has one of them. None: all have ``size``.
        bucketing: Whether a file is shown in that of the sizes only whose shape is nearest its own.
        shares, images_per_video: As for ``joined``; a kind without data is left out.
        shard_cache, shard_cache_gb: As for ``ShardCache``.

    The others are those of ``Clips``.

    Raises:
        BadRequest: nothing is given, or what is given is not what it should be.
    """
    given = {"images": images, "videos": videos, "labelled_videos": labelled_videos}
    held_out = {
        "images": validation_images,
        "videos": validation_videos,
        "labelled_videos": validation_labelled_videos,
    }
    if not any(given.values()):
        raise BadRequest(
            "The data is not given: data.images=... are captioned images, data.videos=... videos whose captions are "
            "not read, and data.labelled_videos=... captioned videos; one of them will do. Each is a folder, a list or "
            "WebDataset shards."
        )
    if sizes is not None and (isinstance(sizes, (int, str)) or not sizes):
        raise BadRequest(f"data.sizes={sizes} is no list of sizes. Write data.sizes=[[256,448],[448,256]].")
    if bucketing and sizes is None:
        raise BadRequest("data.bucketing=true needs sizes to choose from: data.sizes=[[256,448],[448,256],[320,320]].")
    how = {"frames": frames, "stride": stride, "fps": fps, "start": start, "short": short, "size": size, "crop": crop}
    kept = {"shard_cache": shard_cache, "shard_cache_gb": shard_cache_gb}
    opened = {}
    for key, path in given.items():
        if path:
            opened[key] = _opened(key, path, held_out[key], kept, **how, shuffle=shuffle)
            for source in filter(None, (opened[key], opened[key].held_out())):
                source.uncaptioned = UNCAPTIONED.get(key, "")
        elif held_out[key]:
            raise BadRequest(f"data.validation_{key}={held_out[key]} is given, but no data.{key}. Give both.")
    for kind, key in NEEDED.items():
        listed = opened.get(key)
        if "text" in TOLD[kind] and shares.get(kind, 0) > 0 and listed is not None:
            listed.check_captions(f"data.{key}={given[key]}")
            if held_out[key]:
                listed.held_out().check_captions(f"data.validation_{key}={held_out[key]}")
    if image_maps:
        if not isinstance(opened.get("images"), Folder):
            raise BadRequest(
                "data.image_maps is for data.images=... that is a folder or a list. Give that, or leave it out."
            )
        opened["images"].maps = ImageMaps(image_maps)
    every = list(dict.fromkeys(size_of(each) for each in sizes or [size]))
    sized = {
        key: in_buckets(source, every) if bucketing else {each: source.copied(size=each) for each in every}
        for key, source in opened.items()
    }
    sources: dict[str, dict[str, Source]] = {
        kind: {
            f"{height}x{width}" if sizes else "": source.copied("text" in TOLD[kind])
            for (height, width), source in sized[key].items()
        }
        for kind, key in NEEDED.items()
        if key in sized
    }
    return joined(sources, shares, images_per_video)


def _opened(key: str, path: str, validation: str | None, kept: Mapping[str, Any], **how: Any) -> Folder | Shards:
    place = Path(path).expanduser()
    packed = path.partition("?")[0].endswith(".tar") or (place.is_dir() and any(place.glob("*.tar")))
    kind = "images" if key == "images" else "videos"
    try:
        given = {"path": path, "validation": validation, "kind": kind, **how}
        return Shards(**given, **kept) if packed else Folder(**given)
    except BadRequest as error:  # these sources call their keys otherwise
        said = str(error).replace("data.path", f"data.{key}").replace("data.validation", f"data.validation_{key}")
        raise BadRequest(said.replace("; data.kind is videos or images", "")) from error
