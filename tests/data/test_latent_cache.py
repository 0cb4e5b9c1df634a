"""What the VAE made of data is kept once, found again, and never trusted when damaged."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from little_data import batch_draw, write_lines, write_video

from vidgen_core.data.captions import Captions
from vidgen_core.data.latent_cache import LatentCache
from vidgen_core.errors import VidgenError


@pytest.fixture
def cache(tmp_path: Path) -> LatentCache:
    return LatentCache(tmp_path / "cache", "vae")


def moments(frames: int = 4, value: float = 0.5) -> torch.Tensor:
    return torch.full((frames, 8, 2, 2), value)


def test_what_is_kept_is_found_in_half_precision(cache: LatentCache) -> None:
    kept = torch.randn(4, 8, 2, 2)
    cache.put("key", kept)
    found = cache.get("key")
    assert found is not None and found.dtype == torch.float16
    assert torch.equal(found, kept.half())
    assert cache.get("other") is None
    assert LatentCache(cache.folder.parent, "another vae").get("key") is None


@pytest.mark.parametrize("damage", [b"", b"no safetensors", "cut"])
def test_a_damaged_file_counts_as_absent_and_is_written_again(cache: LatentCache, damage: Any) -> None:
    cache.put("key", moments())
    path = cache.path("key")
    path.write_bytes(path.read_bytes()[:-9] if damage == "cut" else damage)
    assert cache.get("key") is None
    cache.put("key", moments())
    assert cache.get("key") is not None


def test_a_file_appears_whole_or_not_at_all(cache: LatentCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    cache.put("other", moments())
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(VidgenError, match=r"cannot be written: No space left on device.*trainer.cache"):
        cache.put("key", moments())
    assert cache.get("key") is None
    assert [file.name for file in cache.folder.rglob("*") if file.is_file()] == ["other.safetensors"]


def test_what_half_precision_cannot_hold_is_not_kept(cache: LatentCache) -> None:
    for value in (1e6, float("nan"), float("inf")):
        cache.put("key", moments(value=value))
    assert cache.get("key") is None


def test_pieces_are_joined_only_when_all_are_there_and_fit(cache: LatentCache) -> None:
    cache.put("a", moments(value=1))
    cache.put("b", moments(frames=2, value=2))
    joined = cache.moments(("a", "b"), (4, 2))
    assert joined is not None and joined[:, 0, 0, 0].tolist() == [1, 1, 1, 1, 2, 2]
    assert cache.moments(("a", "c"), (4, 2)) is None
    assert cache.moments(("a", "b"), (4, 4)) is None


@pytest.fixture
def data(tmp_path: Path, cache: LatentCache) -> Captions:
    """One story of two segments, with the cache."""
    names = [write_video(tmp_path / f"{i}.mp4").name for i in range(2)]
    lines = write_lines(tmp_path / "stories.jsonl", {"captions": ["one", "two"], "video_segments": names})
    source = Captions(str(lines), frames_per_scene=4, size=16)
    source.cache = cache
    return source


def test_a_sample_whose_scenes_are_all_kept_is_not_decoded(data: Captions, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data.draw(batch_draw()).samples[0]
    assert first.moments is None and first.frames is not None and len(set(first.cache_keys)) == 2
    data.cache.put(first.cache_keys[0], moments(value=1))
    assert data.draw(batch_draw()).samples[0].frames is not None
    data.cache.put(first.cache_keys[1], moments(value=2))
    monkeypatch.setattr("vidgen_core.video.VideoReader.frames", lambda *_: pytest.fail("decoded"))
    kept = data.draw(batch_draw()).samples[0]
    assert kept.frames is None and kept.moments.shape == (8, 8, 2, 2)
    assert kept.moments[:, 0, 0, 0].tolist() == [1] * 4 + [2] * 4


def test_a_key_follows_the_file_the_frames_and_the_cut(data: Captions, tmp_path: Path) -> None:
    def keys(**other: Any) -> tuple[str, ...]:
        return (
            Captions(str(data.file), **{"frames_per_scene": 4, "size": 16, **other})
            .draw(batch_draw())
            .samples[0]
            .cache_keys
        )

    before = keys()
    assert keys() == before
    for other in ({"size": 24}, {"size": [16, 24]}, {"crop": "resize_center"}, {"frames_per_scene": 3}):
        assert not set(keys(**other)) & set(before)
    write_video(tmp_path / "1.mp4", frames=13)
    assert keys()[0] == before[0] and keys()[1] != before[1]
