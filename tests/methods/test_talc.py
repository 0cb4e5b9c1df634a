"""TALC: captions on the frame axis, in three modes."""

from __future__ import annotations

import pytest
import torch
from vidgen_talc.method import build

from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.testing import latents, make_run, request, video


def scenes(run):
    return [(s.prompt, s.start, s.stop, s.negative_prompt) for s in run.request.videos[0].scenes]


def captions_of_frames(run, backbone):
    """The row of ``run.texts`` that each frame reads, guided branch."""
    run.place(backbone, None)
    (group,) = run.moments.plan(run=run)
    return run.moments.condition(run=run, window=group.windows[0])["text"]


@pytest.fixture(scope="module")
def backbone():
    return tiny.build()


def test_one_scene_equals_the_plain_model_exactly(backbone) -> None:
    assert torch.equal(
        video(request("a dog"), {"talc": build()}, backbone=backbone), video(request("a dog"), backbone=backbone)
    )


def test_every_scene_gets_the_default_frames() -> None:
    run = make_run(request("one", "two", "three"), {"talc": build()})
    assert scenes(run) == [("one", 0, 4, ""), ("two", 4, 8, ""), ("three", 8, 12, "")]
    assert run.request.num_frames == 12


def test_num_frames_is_divided_among_the_scenes() -> None:
    run = make_run(request("one", "two", "three", num_frames=10), {"talc": build()})
    assert [(start, stop) for _, start, stop, _ in scenes(run)] == [(0, 3), (3, 6), (6, 10)]


@pytest.mark.parametrize("count", [1, 3, 5, 7])
def test_any_number_of_scenes(count, backbone) -> None:
    names = [f"scene {i}" for i in range(count)]
    frames = video(request(*names), {"talc": build(scene_frames=1)}, backbone=backbone)
    assert frames.shape == (1, count, 3, 32, 32)


def test_every_frame_reads_the_caption_of_its_scene(backbone) -> None:
    run = make_run(request("one", "two", negative=("dark", "blurry")), {"talc": build(scene_frames=[1, 3])})
    text = captions_of_frames(run, backbone)
    assert text.cond.index.tolist() == [run.texts.rows(["one", "two", "two", "two"])]
    assert text.uncond.index.tolist() == [run.texts.rows(["dark", "blurry", "blurry", "blurry"])]


def test_one_negative_prompt_serves_all_scenes() -> None:
    run = make_run(request("one", "two", negative=("dark",)), {"talc": build()})
    assert [negative for *_, negative in scenes(run)] == ["dark", "dark"]


def test_a_caption_changes_its_own_scene_most(backbone) -> None:
    talc = {"talc": build(scene_frames=[3, 3])}
    before = latents(request("a dog", "a dog"), talc, backbone=backbone)[0].latents
    after = latents(request("a dog", "an entirely different thing"), talc, backbone=backbone)[0].latents
    change = (after - before).abs().mean(dim=(0, 1, 3, 4))
    assert change[3:].mean() > 2 * change[:3].mean() > 0


def test_merged_captions_are_one_text(backbone) -> None:
    run = make_run(request("A dog.", "It runs."), {"talc": build(mode="merged")})
    assert scenes(run) == [("A dog. Then, It runs.", 0, 8, "")]
    plain = video(request("A dog. Then, It runs.", num_frames=8), backbone=backbone)
    merged = video(request("A dog.", "It runs."), {"talc": build(mode="merged")}, backbone=backbone)
    assert torch.equal(plain, merged)


def test_separate_scenes_are_clips_with_their_own_noise(backbone) -> None:
    clips = video(request("a dog", "a dog"), {"talc": build(mode="separate")}, backbone=backbone)
    assert torch.equal(clips[:, :4], video(request("a dog"), backbone=backbone))
    assert not torch.allclose(clips[:, :4], clips[:, 4:])


def test_a_batch_gives_the_videos_that_single_runs_give(backbone) -> None:
    import dataclasses

    talc = {"talc": build()}
    both = request("one", "two", videos=2)
    together = video(both, talc, backbone=backbone)
    for b, single in enumerate(both.videos):
        alone = video(dataclasses.replace(both, videos=(single,)), talc, backbone=backbone)
        assert torch.allclose(together[b], alone[0], atol=1e-4)
    assert not torch.allclose(together[0], together[1])


def test_a_crossfade_blends_neighbouring_captions(backbone) -> None:
    run = make_run(request("one", "two"), {"talc": build(crossfade=4)})
    text = captions_of_frames(run, backbone)
    one, two = run.texts.rows(["one", "two"])
    table, rows = run.texts.embeds, text.cond.index[0].tolist()
    assert rows[0] == rows[1] == one and rows[6] == rows[7] == two
    shares = [0.125, 0.375, 0.625, 0.875]
    for row, share in zip(rows[2:6], shares, strict=True):
        assert torch.allclose(table[row], torch.lerp(table[one], table[two], share))


@pytest.mark.parametrize(
    ("options", "prompts", "changes", "message"),
    [
        ({"scene_frames": [4, 4, 4]}, ("a", "b"), {}, "3 numbers for 2 scenes"),
        ({"scene_frames": [4, 0]}, ("a", "b"), {}, "at least one frame"),
        (
            {"scene_frames": [4, 4]},
            ("a", "b"),
            {"num_frames": 9},
            "adds up to 8 frames, but num_frames=9. Write num_frames=8.",
        ),
        ({}, ("a", "b", "c"), {"num_frames": 2}, "too short for 3 scenes"),
        ({"scene_frames": 2.5}, ("a", "b"), {}, "as a whole number"),
        ({"scene_frames": True}, ("a", "b"), {}, "as a whole number"),
        ({"scene_frames": 2, "crossfade": 3}, ("a", "b"), {}, "longer than the shortest scene of 2 frames"),
    ],
)
def test_scenes_and_frames_that_do_not_match_are_refused(options, prompts, changes, message) -> None:
    with pytest.raises(BadRequest, match=message):
        make_run(request(*prompts, **changes), {"talc": build(**options)})


def test_an_unknown_mode_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadRequest, match="Did you mean 'merged'"):
        build(mode="merge")


def test_a_crossfade_needs_the_aligned_mode() -> None:
    with pytest.raises(BadRequest, match="time_aligned"):
        build(mode="merged", crossfade=3)


def test_merged_captions_that_are_cut_warn_with_numbers(backbone, capsys) -> None:
    video(request("x" * 60, "y" * 60), {"talc": build(mode="merged")}, backbone=backbone)
    assert "needs 129 tokens, the model reads 77: its last 52 are cut" in capsys.readouterr().err


def test_several_scenes_without_a_method_are_refused() -> None:
    with pytest.raises(BadRequest, match="list of 2 scenes, which the plain model cannot arrange"):
        make_run(request("a", "b"))


def test_merged_scenes_without_captions_are_an_empty_text() -> None:
    run = make_run(request("", "", num_frames=4), {"talc": build("merged")})
    assert scenes(run) == [("", 0, 4, "")]
