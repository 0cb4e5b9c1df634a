"""Several sources as one: who is shown when, and that nothing is left out or shown twice."""

from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import replace

import pytest

from vidgen_core.data.epochs import NothingReadable
from vidgen_core.data.mixture import BLOCK, Mixture, Part
from vidgen_core.data.sample import Batch, Draw, Sample, draw_of
from vidgen_core.errors import BadRequest, VidgenError


class Numbers:
    """A source whose samples say which number they were drawn by."""

    cache = None

    def __init__(self, error: Exception | None = None, count: int = 0) -> None:
        self.error, self.count = error, count

    def __len__(self) -> int:
        return self.count

    def held_out(self) -> None:
        return None

    def draw(self, draw: Draw) -> Batch:
        if self.error:
            raise self.error
        return Batch([Sample(("",), (1,), name=str(number), number=number) for number in draw.numbers], draw)


def mixture(**shares: float) -> Mixture:
    return Mixture({name: Part(Numbers(), share, (name,)) for name, share in shares.items()})


def draws(step: int, processes: int = 1, batch_size: int = 1, accumulation: int = 1) -> list[Draw]:
    cut = {"processes": processes, "batch_size": batch_size, "accumulation": accumulation}
    pairs = [(micro, rank) for micro in range(accumulation) for rank in range(processes)]
    return [draw_of(step, micro, rank, steps=100, seed=0, **cut) for micro, rank in pairs]


def seen(source: Mixture, steps: int, **cut: int) -> list[list[tuple[str, str, int]]]:
    """Part, name and number of every sample of every step."""
    batches = [[source.draw(draw) for draw in draws(step, **cut)] for step in range(steps)]
    return [[(b.part, s.name, s.number) for b in step for s in b.samples] for step in batches]


def test_steps_show_the_parts_in_their_shares_however_few_they_are() -> None:
    source = mixture(images=1, videos=2, stories=1)
    for first, steps in ((0, 40), (1000, 40), (0, 400)):
        counts = Counter(source.shown(step) for step in range(first, first + steps))
        assert counts == pytest.approx({"images": steps / 4, "videos": steps / 2, "stories": steps / 4}, abs=2)


@pytest.mark.parametrize(
    ("parts", "whole"), [((True, True), True), ((True, False), False), ((True, None), None), ((None, False), False)]
)
def test_frames_recur_where_they_do_in_all_parts(parts: tuple[bool | None, ...], whole: bool | None) -> None:
    source = mixture(**{f"part{i}": 1 for i in range(len(parts))})
    for part, recurs in zip(source.parts.values(), parts, strict=True):
        if recurs is not None:  # else it does not say
            part.source.recurring = recurs
    assert source.recurring is whole


def test_every_part_shows_its_samples_one_after_the_other() -> None:
    shown = [sample for step in seen(mixture(images=1, videos=3), 50, batch_size=2) for sample in step]
    for part in ("images", "videos"):
        names = [int(name) for kind, name, _ in shown if kind == part]
        assert names == list(range(len(names)))
    assert len({number for _, _, number in shown}) == len(shown)


def test_a_step_is_the_same_however_it_is_cut() -> None:
    whole = seen(mixture(images=1, videos=1), 12, batch_size=4)
    assert seen(mixture(images=1, videos=1), 12, processes=2, batch_size=2) == whole
    assert seen(mixture(images=1, videos=1), 12, processes=2, batch_size=1, accumulation=2) == whole


def test_an_epoch_shows_all_that_every_part_has_in_its_share_of_the_steps() -> None:
    parts = {"images": Part(Numbers(count=30), 1, times=2), "videos": Part(Numbers(count=12), 3)}
    assert len(Mixture(parts)) == 60  # 15 images of 2 are shown by every fourth step, 12 videos by 16 steps
    shown = [sample for step in seen(Mixture(parts), 60) for sample in step]
    counts = Counter(part for part, _, _ in shown)
    assert counts["images"] == pytest.approx(30, abs=2) and counts["videos"] > 12
    assert len(Mixture(parts | {"endless": Part(Numbers())})) == 0


def test_all_processes_of_a_step_show_one_part_with_its_conditions() -> None:
    source = mixture(images=1, videos=1)
    for step in range(8):
        batches = [source.draw(draw) for draw in draws(step, processes=3)]
        assert {(batch.part, batch.told) for batch in batches} == {(source.shown(step), (source.shown(step),))}


def test_a_later_step_is_known_without_the_earlier_ones() -> None:
    source, late = mixture(images=1, videos=2), BLOCK + 17
    shown = Counter(source.shown(step) for step in range(late))
    batch = pickle.loads(pickle.dumps(mixture(images=1, videos=2))).draw(draws(late)[0])
    assert int(batch.samples[0].name) == shown[batch.part]


def test_several_samples_may_stand_for_one() -> None:
    parts = {"images": Part(Numbers(), times=3), "videos": Part(Numbers())}
    shown = seen(Mixture(parts), 6, batch_size=2)
    assert {step[0][0]: len(step) for step in shown} == {"images": 6, "videos": 2}
    numbers = [number for step in shown for _, _, number in step]
    assert len(set(numbers)) == len(numbers)


def test_a_part_that_cannot_be_read_is_named() -> None:
    broken = VidgenError("None of the 3 items of the data can be used.")
    with pytest.raises(VidgenError, match="The data of images: None of the 3 items"):
        Mixture({"images": Part(Numbers(broken))}).draw(draws(0)[0])


def test_parts_of_a_kind_stand_in_for_one_of_which_nothing_can_be_read() -> None:
    broken = {name: Numbers(NothingReadable({f"{name}.mp4": "damaged"})) for name in ("tall", "small")}
    parts = {name: Part(source, kind="videos") for name, source in broken.items()}
    source = Mixture(parts | {"wide": Part(Numbers(), kind="videos"), "images": Part(Numbers(), kind="images")})
    shown = {source.shown(step): source.draw(draws(step)[0]) for step in range(40)}
    assert {name: batch.part for name, batch in shown.items()} == {
        "tall": "wide",
        "small": "wide",
        "wide": "wide",
        "images": "images",
    }
    assert shown["wide"].skipped == () and ("tall.mp4", "damaged") in shown["tall"].skipped
    with pytest.raises(NothingReadable, match=r"data of videos: None of the 2 items .* tall.mp4: damaged; small.mp4"):
        Mixture(parts).draw(draws(0)[0])


def test_a_part_without_a_share_is_left_out_and_none_at_all_is_refused() -> None:
    assert list(mixture(images=0, videos=1).parts) == ["videos"]
    with pytest.raises(BadRequest, match="of images none has a share above 0"):
        mixture(images=0)
    with pytest.raises(BadRequest, match="'images' has share -1"):
        mixture(images=-1, videos=1)


def test_what_parts_hold_out_is_mixed_in_the_same_shares() -> None:
    class WithHeldOut(Numbers):
        def held_out(self) -> Numbers:  # type: ignore[override]
            return Numbers()

    both = Mixture({"images": Part(WithHeldOut(), 3), "videos": Part(Numbers())})
    held_out = both.held_out()
    assert held_out is not None and list(held_out.parts) == ["images"]
    assert mixture(images=1).held_out() is None
    assert replace(both.parts["images"], source=held_out.parts["images"].source) == held_out.parts["images"]
