"""The pieces of the trainings do what the recipes rely on."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from vidgen_moving_shapes.captions import clip_caption, image_pair_caption
from vidgen_moving_shapes.combinations import COMBINATIONS, ENTITIES, HELD_OUT_COMBINATIONS, HELD_OUT_IMAGES
from vidgen_moving_shapes.palette import COLOURS
from vidgen_moving_shapes.shapes import SHAPES
from vidgen_moving_shapes.stories import draw_story
from vidgen_moving_shapes.tokenizer import END, MAX_LENGTH, UNKNOWN, build_tokenizer
from vidgen_moving_shapes.training import clips
from vidgen_moving_shapes.training.autoencoder import LATENT_DEVIATION, build_autoencoder, fold_statistics
from vidgen_moving_shapes.training.clips import DRAWN, Clips
from vidgen_moving_shapes.training.fresh import SCHEDULER
from vidgen_moving_shapes.training.image_encoder import Embedded, build_clip, contrastive_loss
from vidgen_moving_shapes.training.images import Images
from vidgen_moving_shapes.training.text import WIDTH
from vidgen_moving_shapes.training.text_to_image import build_unet as build_image_unet
from vidgen_moving_shapes.training.video import TextToVideo
from vidgen_moving_shapes.world import BACK_NEARNESS, FRONT_NEARNESS, GROUND_NEARNESS, draw_pair_scene, draw_scene
from vidgen_talc.method import THEN

from vidgen_core.data.pixels import to_model_range
from vidgen_core.data.sample import Batch, Draw
from vidgen_core.errors import BadRequest
from vidgen_core.models.from_images import over_frames
from vidgen_core.sampling import make_scheduler


def draw(count: int = 64, progress: float = 0.0) -> Draw:
    return Draw(tuple(range(count)), step=0, micro=0, rank=0, progress=progress, seed=0)


# ------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize("end_last", [False, True])
def test_the_tokenizer_knows_every_caption(end_last: bool) -> None:
    tokenizer = build_tokenizer(end_last)
    captions = [clip_caption(*combination) for combination in COMBINATIONS]
    captions += [image_pair_caption(first, second, "pink") for first, second in pairwise(ENTITIES)]
    tokens = tokenizer([THEN.join(captions[:4]), *captions], padding="max_length", max_length=MAX_LENGTH)
    assert not any(tokenizer.convert_tokens_to_ids(UNKNOWN) in row for row in tokens.input_ids)
    assert all(len(row) == MAX_LENGTH for row in tokens.input_ids)


def test_a_clip_takes_the_end_of_a_caption_for_its_end() -> None:
    tokenizer = build_tokenizer(end_last=True)
    assert tokenizer.convert_tokens_to_ids(END) == len(tokenizer) - 1
    clip = build_clip(tokenizer).eval()
    short, long = ("a red circle moves up on a white background", "a red circle moves up on a black background")
    tokens = tokenizer([short, long], padding="max_length", max_length=20, return_tensors="pt")
    with torch.no_grad():
        found = clip.text_model(input_ids=tokens.input_ids)
    end = (tokens.input_ids[0] == tokenizer.eos_token_id).nonzero()[0]
    assert torch.equal(found.pooler_output[0], found.last_hidden_state[0, end][0])
    assert not torch.allclose(found.pooler_output[0], found.pooler_output[1], atol=1e-3)


# -------------------------------------------------------------------------------------------------- data


def test_pictures_for_training_show_no_held_out_combination() -> None:
    unseen = {(entity.colour, entity.shape, ground) for entity, ground in HELD_OUT_IMAGES}
    captions = [s.captions[0].split() for s in Images(pairs=0.5).draw(draw(200)).samples]
    for words in captions:
        starts = [0, *(i + 1 for i, word in enumerate(words) if word == "of")]
        assert not {(words[i + 1], words[i + 2], words[-2]) for i in starts} & unseen


@pytest.mark.parametrize("scenes", DRAWN)
def test_clips_for_training_show_no_held_out_combination(scenes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    painted = []

    def note(rng, entity, motion, ground, *frames):
        painted.append((entity, motion, ground))
        return draw_scene(rng, entity, motion, ground, *frames)

    def note_story(*arguments):
        story = draw_story(*arguments)
        painted.extend(story.combinations)
        return story

    def note_pair(rng, mover, motion, in_front, other, ground):
        painted.extend([(mover, motion, ground), (other, "stays still", ground)])
        return draw_pair_scene(rng, mover, motion, in_front, other, ground)

    monkeypatch.setattr(clips, "draw_scene", note)
    monkeypatch.setattr(clips, "draw_pair_scene", note_pair)
    monkeypatch.setattr(clips, "draw_story", note_story)
    monkeypatch.setattr(clips, "play", lambda scenes: np.zeros((sum(len(s.layers[0].track) for s in scenes), 1, 1, 3)))
    rng = np.random.default_rng(0)
    for i in range(200):
        DRAWN[scenes](rng, i / 200)
    assert len(painted) > 400 and not set(painted) & HELD_OUT_COMBINATIONS


def test_brief_captions_leave_out_colour_and_ground_but_never_shape_and_motion() -> None:
    asked = [replace(draw(1), numbers=(number,)) for number in range(8)]
    brief, full = ([s for one in asked for s in source.draw(one).samples] for source in (Clips(brief=1.0), Clips()))
    told = [sample.captions[0].split() for sample in brief]
    assert {any(word in COLOURS for word in words) for words in told} == {True, False}
    assert {"background" in words for words in told} == {True, False}
    assert all(any(word in SHAPES for word in words) for words in told)
    assert all(torch.equal(one.frames, other.frames) for one, other in zip(brief, full, strict=True))


@pytest.mark.parametrize(("keys", "told"), [({"brief": 1.5}, "0 to 1"), ({"brief": 0.1, "scenes": "long"}, "single")])
def test_a_share_of_brief_captions_that_cannot_be_is_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRequest, match=told):
        Clips(**keys)


def test_a_picture_of_two_objects_has_three_depths_and_two_colours() -> None:
    for sample in Images(pairs=1.0, nearness=True).draw(draw(20)).samples:
        assert np.unique(sample.extra["nearness"]) == pytest.approx([GROUND_NEARNESS, BACK_NEARNESS, FRONT_NEARNESS])
        words = sample.captions[0].split()
        assert "in front of" in sample.captions[0] and words[1] != words[words.index("of") + 2]


def test_a_picture_depends_on_its_number_alone() -> None:
    whole, part = Images().draw(draw(4)), Images().draw(Draw((2, 3), 5, 1, 1, 0.5, 0))
    for first, second in zip(whole.samples[2:], part.samples, strict=True):
        assert torch.equal(first.frames, second.frames) and first.captions == second.captions


def test_captions_of_the_same_picture_have_the_same_content() -> None:
    samples = Images(motions=0.5).draw(draw(400)).samples
    said: dict[int, set[tuple[str, ...]]] = {}
    for sample in samples:
        words = sample.captions[0].split()
        said.setdefault(int(sample.extra["content"]), set()).add((words[1], words[2], words[-2]))
    assert all(len(pictures) == 1 for pictures in said.values())


def test_an_unknown_choice_of_combinations_is_refused() -> None:
    with pytest.raises(BadRequest, match="neither training nor all"):
        Images("some")


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("scenes", ["single", "stories"])
def test_the_clips_of_a_batch_are_alike_in_length(scenes: str, progress: float) -> None:
    for first in range(4):
        batch = Clips(scenes).draw(Draw((first,), 0, 0, 0, progress, 0))
        assert len({sample.scene_frames for sample in batch.samples}) == 1
        for sample in batch.samples:
            assert len(sample.frames) == sum(sample.scene_frames) == len(sample.extra["path"])


def test_a_clip_of_two_objects_tells_of_the_one_that_moves() -> None:
    for sample in Clips("pairs").draw(Draw((0,), 0, 0, 0, 0.0, 0)).samples:
        (caption,) = sample.captions
        assert (" in front of a " in caption) != (" behind a " in caption)
        steps = np.diff(sample.extra["place"][:, 0].numpy())
        assert (steps > 0).all() if "moves right" in caption else (steps < 0).all()


def test_more_than_a_batch_of_clips_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="trainer.batch_size=1 trainer.accumulation=2"):
        Clips().draw(Draw((0, 1), 0, 0, 0, 0.0, 0))


# --------------------------------------------------------------------------------------------- objectives


def test_the_last_timestep_is_pure_noise() -> None:
    assert make_scheduler(SCHEDULER).alphas_cumprod[-1] == 0


def test_half_of_the_timesteps_of_a_clip_are_of_high_noise() -> None:
    batch = Batch([None] * 1000, draw(1000))  # type: ignore[list-item]
    steps = TextToVideo().timesteps(batch, 1000)
    assert steps.min() >= 0 and steps.max() == 999
    assert 0.5 < (steps >= 800).float().mean() < 0.75


def test_folding_gives_latents_one_deviation_and_keeps_the_decoding() -> None:
    torch.manual_seed(0)
    model = build_autoencoder().eval()
    pictures = to_model_range(torch.cat([sample.frames for sample in Images("all").draw(draw(32)).samples]))
    with torch.no_grad():
        before = model.decode(model.encode(pictures).latent_dist.mean).sample
        fold_statistics(model, pictures)
        latents = model.encode(pictures).latent_dist.mean
        after = model.decode(latents).sample
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 1e-4
    assert latents.std(dim=(0, 2, 3)).numpy() == pytest.approx(LATENT_DEVIATION, abs=1e-3)
    assert torch.allclose(before, after, atol=1e-4)


def test_the_video_model_starts_as_the_image_model() -> None:
    torch.manual_seed(0)
    image_unet = build_image_unet().eval()
    video_unet = over_frames(image_unet, "the image model").eval()
    latents, text, step = torch.randn(1, 4, 3, 16, 16), torch.randn(1, 8, WIDTH), torch.tensor([500])
    with torch.no_grad():
        clip = video_unet(latents, step, text).sample[0].transpose(0, 1)
        stills = image_unet(latents[0].transpose(0, 1), step, text.expand(3, -1, -1)).sample
    assert torch.allclose(clip, stills, atol=1e-4)


def test_what_says_the_same_of_a_picture_is_no_negative() -> None:
    unit = torch.eye(3)
    scale = torch.tensor(math.log(50.0))
    alike = Embedded(unit[[0, 0, 1]], unit[[0, 0, 1]], torch.tensor([5, 5, 6]), scale)
    apart = Embedded(unit[[0, 0, 1]], unit[[0, 0, 1]], torch.tensor([4, 5, 6]), scale)
    least = 2 / 3 * math.log(2)  # two of three share their target between two
    assert contrastive_loss(alike).item() == pytest.approx(least, abs=1e-4)
    assert contrastive_loss(apart).item() == pytest.approx(least, abs=1e-4)
    wrong = Embedded(unit[[0, 1, 2]], unit[[1, 2, 0]], torch.tensor([4, 5, 6]), scale)
    assert contrastive_loss(wrong).item() > 10
