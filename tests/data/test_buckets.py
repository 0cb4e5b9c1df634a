"""Files of several sizes: each is trained in the size of its shape, a batch has one, whoever reads it."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from little_data import batch_draw, write_image, write_video

from vidgen_core.data.buckets import nearest_size
from vidgen_core.data.clips import size_of_image
from vidgen_core.data.joint import from_files
from vidgen_core.data.loading import read_ahead
from vidgen_core.data.mixture import Mixture
from vidgen_core.data.sample import Batch, Draw, Sample, draw_of, of_one_size
from vidgen_core.errors import BadRequest
from vidgen_core.video import size_of_video

SIZES = [[16, 24], [24, 16], 16]
WIDE, TALL, SQUARE = (16, 24), (24, 16), (16, 16)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Images and videos of three shapes, none of them just that of a bucket, and a list of the images."""
    for place, (height, width) in enumerate([(40, 64), (42, 60), (60, 40), (44, 40), (40, 42), (40, 40)]):
        write_image(tmp_path / f"images/{place}.png", place, height, width)
    for place, (height, width) in enumerate([(32, 50), (50, 32), (54, 32), (32, 34)]):
        write_video(tmp_path / f"videos/{place}.mp4", 6, height, width)
    return tmp_path


def source(files: Path, **more: Any) -> Mixture:
    given = {"images": str(files / "images"), "videos": str(files / "videos"), "frames": 2, "images_per_video": 2}
    shares = {"image_to_image": 1.0, "image_to_video": 1.0}
    return from_files(**{**given, "sizes": SIZES, "bucketing": True, "shares": shares, **more})


def seen(mixed: Mixture, steps: int, processes: int = 1) -> list[list[tuple[str, tuple[int, int], str]]]:
    """Part, size and name of every sample of every step, whichever process reads it."""
    return [
        [
            (batch.part, tuple(sample.frames.shape[-2:]), sample.name)
            for rank in range(processes)
            for batch in [mixed.draw(cut(step, rank, processes))]
            for sample in batch.samples
        ]
        for step in range(steps)
    ]


def cut(step: int, rank: int, processes: int) -> Draw:
    return draw_of(step, 0, rank, accumulation=1, processes=processes, batch_size=4 // processes, steps=99, seed=0)


def test_a_file_is_shown_in_the_size_of_its_shape_alone_and_a_step_has_one_size(files: Path) -> None:
    steps = seen(source(files), 60)
    assert all(len({(part, size) for part, size, _ in step}) == 1 for step in steps)
    found = {(name, size) for step in steps for _, size, name in step}
    assert found == {
        *(("0.png", WIDE), ("1.png", WIDE), ("2.png", TALL), ("3.png", SQUARE), ("4.png", SQUARE), ("5.png", SQUARE)),
        *(("0.mp4", WIDE), ("1.mp4", TALL), ("2.mp4", TALL), ("3.mp4", SQUARE)),
    }


def test_sizes_come_as_often_as_they_have_files_and_every_file_as_often_as_another(files: Path) -> None:
    steps = seen(source(files), 120)
    images = Counter(name for step in steps for _, _, name in step if name.endswith("png"))
    videos = Counter(name for step in steps for _, _, name in step if name.endswith("mp4"))
    assert set(images.values()) <= set(range(72, 89)) and len(images) == 6
    assert set(videos.values()) <= set(range(53, 68)) and len(videos) == 4


def test_the_processes_of_a_step_share_its_size_and_see_what_one_would(files: Path) -> None:
    assert seen(source(files), 12, processes=2) == seen(source(files), 12)
    for step in range(12):
        batches = [source(files).draw(cut(step, rank, 4)) for rank in range(4)]
        assert len({(batch.part, batch.num_frames) for batch in batches}) == 1


def test_a_later_step_is_known_without_the_earlier_ones(files: Path) -> None:
    whole = seen(source(files), 30)
    later = pickle.loads(pickle.dumps(source(files)))
    assert [[(s.name) for s in later.draw(cut(29, 0, 1)).samples]] == [[name for _, _, name in whole[29]]]


def test_what_is_held_out_is_in_buckets_too(files: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "held_out/a.png", 0, 40, 62)
    held_out = source(files, validation_images=str(tmp_path / "held_out")).held_out()
    assert held_out is not None and list(held_out.parts) == ["image_to_image 16x24"]


def test_files_that_cannot_be_read_are_named_and_replaced_even_where_a_size_has_no_others(files: Path) -> None:
    (files / "images/bad.png").write_bytes(b"no image")
    content = (files / "images/2.png").read_bytes()
    (files / "images/2.png").write_bytes(content[:60])  # its header says that it is tall, alone of all
    mixed = source(files, videos=None)
    batches = [mixed.draw(batch_draw(2 * step, 2, step=step)) for step in range(30)]
    assert {name for batch in batches for name, _ in batch.skipped} == {"bad.png", "2.png"}
    assert {s.name for batch in batches for s in batch.samples} == {f"{n}.png" for n in (0, 1, 3, 4, 5)}


@pytest.mark.parametrize(
    ("own", "size"),
    [
        ((1080, 1920), (512, 896)),
        ((300, 500), (256, 448)),  # the larger one would have to be scaled up to
        ((100, 170), (256, 448)),
        ((1000, 1000), (320, 320)),
        ((1920, 1080), (448, 256)),
    ],
)
def test_the_nearest_shape_counts_then_the_largest_that_a_file_fills(own: Any, size: Any) -> None:
    assert nearest_size(own, [(256, 448), (512, 896), (448, 256), (320, 320)]) == size


def test_turned_files_are_sized_as_they_are_shown(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert size_of_image(tmp_path / "turned.jpg") == (30, 20)
    assert size_of_image(write_image(tmp_path / "upright.png")) == (40, 24)
    assert size_of_video(write_video(tmp_path / "clip.mp4")) == (32, 48)


class TestBadInput:
    def test_buckets_need_sizes(self, files: Path) -> None:
        with pytest.raises(BadRequest, match=r"data.bucketing=true needs sizes to choose from: data.sizes="):
            source(files, sizes=None)

    def test_a_size_that_is_none_is_refused(self, files: Path) -> None:
        for sizes in ([[16, "a"]], [2.5], [[16, 24, 3]], [0]):
            with pytest.raises(BadRequest, match="is not a size. Give one number"):
                source(files, sizes=sizes)

    def test_a_batch_of_mixed_frame_sizes_is_refused_by_name(self) -> None:
        class Mixed:
            def draw(self, draw: Draw) -> Batch:
                import torch

                shapes = {"a.mp4": (2, 3, 16, 24), "b.mp4": (2, 3, 24, 16)}
                samples = [Sample(("",), (2,), torch.zeros(shape), name=name) for name, shape in shapes.items()]
                return Batch(samples, draw)

        with pytest.raises(BadRequest, match="mixed frame sizes: 'a.mp4' is 2 frames of 16 x 24 pixels, 'b.mp4' 2 of"):
            next(read_ahead(Mixed(), [batch_draw()], workers=0))  # type: ignore[arg-type]
        assert of_one_size(Batch([], batch_draw())).samples == []
