"""Images and videos together: which kind of sample has which text, size and length, and what is wrong with files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from little_data import batch_draw, write_image, write_lines, write_sound, write_video

from vidgen_core.data.joint import SHARES, TOLD, from_files
from vidgen_core.data.listing import read_listing
from vidgen_core.data.mixture import Mixture
from vidgen_core.data.sample import Batch, Sample, stack
from vidgen_core.errors import BadRequest


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two captioned images, a list of them, a folder of two videos, one of which has a caption."""
    folder = tmp_path_factory.mktemp("files")
    for place in range(2):
        write_image(folder / f"images/{place}.png", grey=place)
        write_video(folder / f"videos/{place}.mp4", height=32 + 16 * place)
    (folder / "images.txt").write_text("images/0.png|||a grey picture\nimages/1.png ||| another, with: words\n")
    (folder / "videos/0.txt").write_text("a video")
    return folder


def source(files: Path, **more: Any) -> Mixture:
    return from_files(
        **{"images": str(files / "images.txt"), "videos": str(files / "videos"), "size": 16, "frames": 4, **more}
    )


def first_of_each(mixed: Mixture, steps: int = 40) -> dict[str, Batch]:
    batches: dict[str, Batch] = {}
    for step in range(steps):
        if mixed.shown(step) not in batches:
            batches[mixed.shown(step)] = mixed.draw(batch_draw(step, step=step))
    return batches


def test_a_kind_has_the_conditions_and_the_frames_that_it_says(files: Path) -> None:
    found = first_of_each(source(files, labelled_videos=str(files / "videos"), images_per_video=3))
    assert {kind: batch.told for kind, batch in found.items()} == TOLD
    assert {kind: (len(batch), batch.num_frames) for kind, batch in found.items()} == {
        "text_to_image": (3, 1),
        "image_to_image": (3, 1),
        "image_to_video": (1, 4),
        "text_image_to_video": (1, 4),
    }


def test_only_kinds_that_are_told_by_text_read_captions(files: Path) -> None:
    found = first_of_each(source(files, labelled_videos=str(files / "videos")))
    captions = {kind: {caption for s in batch.samples for caption in s.captions} for kind, batch in found.items()}
    assert captions == {
        "text_to_image": {"a grey picture", "another, with: words"},
        "image_to_image": {""},
        "image_to_video": {""},
        "text_image_to_video": {"a video"},
    }
    assert (
        found["text_image_to_video"].skipped == () or "it has no caption" in found["text_image_to_video"].skipped[0][1]
    )


def test_every_step_has_one_of_several_sizes(files: Path) -> None:
    mixed = source(files, sizes=[[16, 24], [24, 16], 32], frames=2)
    sizes = set()
    for step in range(30):
        batch = mixed.draw(batch_draw(2 * step, 2, step=step))
        (size,) = {tuple(sample.frames.shape[-2:]) for sample in batch.samples}
        sizes.add((batch.num_frames, size))
    assert sizes == {(frames, size) for frames in (1, 2) for size in ((16, 24), (24, 16), (32, 32))}


def test_a_kind_without_data_is_left_out(files: Path) -> None:
    assert list(source(files).parts) == ["text_to_image", "image_to_image", "image_to_video"]
    assert list(from_files(videos=str(files / "videos")).parts) == ["image_to_video"]
    assert list(source(files, shares=SHARES | {"text_to_image": 0.0}).parts) == ["image_to_image", "image_to_video"]


def test_what_is_held_out_has_the_same_kinds(files: Path) -> None:
    held_out = source(files, validation_images=str(files / "images.txt")).held_out()
    assert held_out is not None and list(held_out.parts) == ["text_to_image", "image_to_image"]
    assert not held_out.parts["image_to_image"].source.captioned  # type: ignore[attr-defined]


class TestWhatIsBroken:
    def test_missing_images_are_named_and_replaced(self, files: Path) -> None:
        file = files / "some_missing.txt"
        file.write_text("images/0.png|||a picture\nimages/gone.png|||another\n")
        batch = first_of_each(source(files, images=str(file), images_per_video=4))["text_to_image"]
        assert [sample.captions for sample in batch.samples] == [("a picture",)] * 4
        assert [name for name, _ in batch.skipped] == ["images/gone.png"] and "No such file" in batch.skipped[0][1]

    def test_a_file_without_a_video_stream_is_named_and_replaced(self, files: Path) -> None:
        place = files / "sound"
        write_video(place / "good.mp4")
        write_sound(place / "sound.mp4")
        mixed = from_files(videos=str(place), frames=2, size=16)
        batch = mixed.draw(batch_draw(0, 4))
        assert {sample.name for sample in batch.samples} == {"good.mp4"}
        assert [name for name, _ in batch.skipped] == ["sound.mp4"] and "no video" in batch.skipped[0][1]

    @pytest.mark.parametrize("key", ["images", "validation_images", "labelled_videos"])
    def test_captions_that_are_needed_and_all_missing_are_missed_before_the_training(
        self, files: Path, key: str, tmp_path: Path
    ) -> None:
        write_video(tmp_path / "labelled_videos/0.mp4")
        mute = {"labelled_videos": tmp_path / "labelled_videos"}.get(key, files / "images")
        mend = "data.videos=... takes" if key == "labelled_videos" else "text_to_image=0 trains on images without"
        with pytest.raises(BadRequest, match=rf"data.{key}=.*: none of the . files has a caption, .*{mend}"):
            source(files, **{key: str(mute)})

    def test_without_text_images_need_no_caption(self, files: Path) -> None:
        mixed = source(files, images=str(files / "images"), shares=SHARES | {"text_to_image": 0.0})
        assert first_of_each(mixed)["image_to_image"].skipped == ()

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({}, r"data.images=\.\.\. are captioned images, data.videos"),
            ({"videos": "/nowhere"}, "data.videos=/nowhere does not exist"),
            ({"images": "{}/videos"}, r"data.images=.*videos holds no images"),
            ({"labelled_videos": "{}/nothing-*.tar"}, r"data.labelled_videos=.*nothing-\*.tar: there is no"),
            ({"validation_images": "{}/images"}, "is given, but no data.images"),
            ({"videos": "{}/videos", "validation_videos": "/nowhere"}, "data.validation_videos=/nowhere does not"),
            ({"videos": "{}/videos", "shares": {"image_to_vide": 1}}, "Did you mean 'image_to_video'"),
            ({"videos": "{}/videos", "sizes": 16}, "data.sizes=16 is no list of sizes"),
            ({"videos": "{}/videos", "shares": {"image_to_video": 0}}, "of image_to_video none has a share above 0"),
        ],
    )
    def test_a_mistake_is_one_paragraph_that_names_the_key(self, files: Path, given: Any, message: str) -> None:
        if not given:
            pass
        elif "videos" not in given and "images" not in given and "labelled_videos" not in given:
            given = given | {"videos": str(files / "videos")}
        with pytest.raises(BadRequest, match=message):
            from_files(**{k: v.format(files) if isinstance(v, str) else v for k, v in given.items()})


def test_a_line_of_text_may_hold_a_caption(tmp_path: Path) -> None:
    listing = write_lines(tmp_path / "list.txt", "a.mp4|||it goes, on: and on", "b c.mp4", "d.mp4|||")
    assert read_listing(listing) == [("a.mp4", "it goes, on: and on"), ("b c.mp4", None), ("d.mp4", None)]


class TestMaps:
    @pytest.fixture
    def maps(self, files: Path, tmp_path: Path) -> Path:
        """Depth of one image as an array at half the size, and of the other as a picture."""
        (tmp_path / "images").mkdir()
        np.save(tmp_path / "images/0.npy", np.tile(np.linspace(0, 2, 12, dtype=np.float32), (20, 1)))
        write_image(tmp_path / "images/1.png", grey=16)
        return tmp_path

    def test_images_bring_them_scaled_and_cut_as_they_are_and_videos_none(self, files: Path, maps: Path) -> None:
        found = first_of_each(source(files, image_maps={"depth": str(maps)}))
        shown = {s.name: s.extra["depth"] for s in found["text_to_image"].samples}
        assert {depth.shape[:1] + depth.shape[2:] for depth in shown.values()} == {(1, 16, 16)}
        row = shown["images/0.png"][0, 0, 8]
        assert row.diff().min() > 0 and row[0] < 0.1 and row[-1] > 1.9
        assert found["image_to_video"].samples[0].extra == {}

    @pytest.mark.parametrize("crop", ["resize_center", "center", "stretch"])
    def test_one_of_another_size_and_shape_lies_where_the_image_does(self, tmp_path: Path, crop: str) -> None:
        picture = np.zeros((48, 64), np.uint8)
        picture[12:36, 36:60] = 255  # right of the middle, where a square map that is not stretched is shifted
        (tmp_path / "maps").mkdir()
        Image.fromarray(picture).save(tmp_path / "a.png")
        Image.fromarray(picture).resize((32, 32), Image.Resampling.BOX).save(tmp_path / "maps/a.png")
        depth = {"depth": str(tmp_path / "maps")}
        listing = write_lines(tmp_path / "list.txt", "a.png")
        mixed = from_files(str(listing), image_maps=depth, size=32, crop=crop, shares={"image_to_image": 1})
        sample = mixed.draw(batch_draw(0)).samples[0]
        image, found = sample.frames[0, 0] > 127, sample.extra["depth"][0, 0] > 0.5
        assert (image & found).sum() / (image | found).sum() > 0.9

    def test_of_coloured_pictures_the_brightness_is_the_depth(self, files: Path, maps: Path) -> None:
        write_image(maps / "images/0.png", grey=16)  # red, green and blue alike
        (maps / "images/0.npy").unlink()
        Image.fromarray(np.full((20, 12), 128, np.uint8)).save(maps / "images/1.png")
        batch = source(files, images_per_video=4, image_maps={"depth": str(maps)}).draw(batch_draw(0))
        depth = stack(batch.samples, "depth")
        assert batch.part.endswith("image") and depth.shape == (4, 1, 1, 16, 16)
        torch.testing.assert_close(depth, torch.full_like(depth, 128 / 255))

    def test_one_of_other_channels_is_named_and_replaced(self, files: Path, maps: Path) -> None:
        np.save(maps / "images/1.npy", np.zeros((2, 8, 8), np.float32))
        batch = first_of_each(source(files, images_per_video=4, image_maps={"depth": str(maps)}))["text_to_image"]
        assert {sample.name for sample in batch.samples} == {"images/0.png"}
        assert [name for name, _ in batch.skipped] == ["images/1.png"] and "2 channels instead of 1" in str(
            batch.skipped
        )

    def test_those_of_a_condition_that_nobody_knows_must_be_alike(self) -> None:
        samples = [Sample(("",), (1,), extra={"heat": torch.zeros(1, c, 8, 8)}, name=f"{c}.png") for c in (1, 3)]
        with pytest.raises(BadRequest, match=r"'heat' of '1.png' as \(1, 1, 8, 8\), but of '3.png' as \(1, 3, 8, 8\)"):
            stack(samples, "heat")

    def test_an_image_without_one_is_named_and_replaced(self, files: Path, maps: Path) -> None:
        (maps / "images/1.png").unlink()
        batch = first_of_each(source(files, image_maps={"depth": str(maps)}))["image_to_image"]
        assert [name for name, _ in batch.skipped] == ["images/1.png"] and "it has no depth" in batch.skipped[0][1]

    def test_what_cannot_be_is_refused(self, files: Path) -> None:
        with pytest.raises(BadRequest, match="data.image_maps.depth=/nowhere is no folder"):
            source(files, image_maps={"depth": "/nowhere"})
        with pytest.raises(BadRequest, match="data.image_maps is for data.images"):
            source(files, images=None, image_maps={"depth": str(files)})
