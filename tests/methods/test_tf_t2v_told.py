"""What every kind of sample is told while TF-T2V trains, and what goes missing at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tf_t2v_runs import CLIP, KEPT, SETTINGS, batch_of, picture_in
from vidgen_tf_t2v.dropping import Dropping
from vidgen_tf_t2v.method import TFT2V

from vidgen_core.data.pixels import to_model_range
from vidgen_core.data.sample import Batch, Draw
from vidgen_core.models import image_encoder, tiny
from vidgen_core.run import Window, opened
from vidgen_core.testing import make_run, request
from vidgen_core.training.denoising import request_of


class Slots:
    """What the network reads in both slots of every sample of a batch, (B, tokens, D); ``image`` is the user's."""

    def __init__(self, batch: Batch, image: str | None = None, **options: Any) -> None:
        self.method = TFT2V(**{**KEPT, **options})
        run = make_run(request(image=image), {"tf_t2v": self.method}, SETTINGS)
        with opened(run, tiny.build()), torch.no_grad():
            run.batch = batch
            run.request = request_of(run, batch, [False] * len(batch))
            window = run.conditioned(Window(range(batch.num_frames), range(batch.num_frames)))
            cond = window.condition["text"].cond
            rows = cond.index[:, 0]
            self.text = cond.embeds[rows]
            self.image = cond.tokens["tf_t2v"][rows] if "tf_t2v" in cond.tokens else None
            self.captions = run.backbone.encode_text([c for s in batch.samples for c in s.captions])
            self.empty = run.backbone.encode_text([""])


class TestWhatASampleIsTold:
    def test_an_image_by_its_caption_has_no_image_tokens(self) -> None:
        slots = Slots(batch_of("text_to_image"))
        assert slots.image is None and torch.equal(slots.text, slots.captions)

    def test_the_picture_of_what_a_training_draws_of_itself_tells_no_sample(self, tmp_path: Path) -> None:
        assert Slots(batch_of("text_to_image"), picture_in(tmp_path)).image is None
        own, others = (Slots(batch_of("image_to_video"), image).image for image in (None, picture_in(tmp_path)))
        assert own is not None and others is not None and torch.equal(own, others)

    @pytest.mark.parametrize("kind", ["image_to_image", "image_to_video"])
    def test_what_is_told_by_an_image_reads_the_negative_prompt_beside_it(self, kind: str) -> None:
        slots = Slots(batch_of(kind))
        assert slots.image is not None and slots.image.any()
        assert torch.equal(slots.text, slots.empty.expand_as(slots.text))

    def test_the_negative_prompt_is_the_releases_where_prompts_are(self) -> None:
        released, empty = (Slots(batch_of("image_to_video"), published_prompt=asked) for asked in (True, False))
        assert not torch.equal(released.text, empty.text)

    def test_a_captioned_video_is_told_by_both(self) -> None:
        slots = Slots(batch_of("text_image_to_video"))
        assert slots.image is not None and torch.equal(slots.text, slots.captions)

    def test_a_missing_text_can_be_zeros_and_a_missing_image_the_empty_one(self) -> None:
        assert not Slots(batch_of("image_to_video"), no_text="zero_tokens").text.any()
        zeros = Slots(batch_of("text_to_image"), no_image="zero_tokens").image
        assert zeros is not None and not zeros.any()

    def test_a_missing_image_can_be_what_the_image_layers_make_of_no_embedding(self) -> None:
        slots = Slots(batch_of("text_to_image"), no_image="zero_embedding")
        image = slots.method.networks.image
        assert image is not None and slots.image is not None and slots.image.any()
        assert torch.equal(slots.image, image(torch.zeros(1, image.width)).expand_as(slots.image))

    def test_the_image_of_a_video_is_its_middle_frame(self) -> None:
        batch = batch_of("image_to_video", frames=5, stride=3)
        slots = Slots(batch)
        encoder, image = image_encoder.load(CLIP, resize="center_bilinear"), slots.method.networks.image
        assert image is not None and slots.image is not None
        for i in range(5):
            frames = to_model_range(torch.stack([sample.frames[i] for sample in batch.samples]))
            assert torch.allclose(slots.image, image(encoder.encode(frames)), atol=1e-5) == (i == 2)

    def test_what_is_dropped_is_zeros_in_both_slots(self) -> None:
        slots = Slots(batch_of("text_image_to_video"), drop_all=1.0)
        assert slots.image is not None and not slots.text.any() and not slots.image.any()

    def test_a_sample_loses_its_own_conditions_alone(self) -> None:
        batch = batch_of("text_image_to_video", samples=12)
        whole, some = Slots(batch, drop_none=0.0), Slots(batch, drop=0.5, drop_none=0.0)
        for part in ("text", "image"):
            before, after = getattr(whole, part), getattr(some, part)
            lost = torch.tensor([not row.any() for row in after])
            assert 0 < lost.sum() < len(lost)
            assert torch.equal(after[~lost], before[~lost])

    def test_captions_can_give_way_to_the_negative_prompt(self) -> None:
        slots = Slots(batch_of("text_to_image"), drop_to_negative=1.0)
        assert torch.equal(slots.text, slots.empty.expand_as(slots.text))

    def test_validation_drops_nothing(self) -> None:
        batch = batch_of("text_image_to_video")
        batch.timestep = 500
        slots = Slots(batch, drop_all=1.0, drop_to_negative=1.0)
        assert torch.equal(slots.text, slots.captions)


class TestDropping:
    def shares(self, dropping: Dropping, samples: int = 4000) -> dict[str, float]:
        batch = Batch(batch_of("text_to_image").samples * (samples // 2), Draw((0,), 0, 0, 0, 0.0, 0))
        for number, sample in enumerate(samples_of(batch)):
            sample.number = number
        text, image = (dropping.kept(batch, name) for name in ("text", "image"))
        both = {"all": text & image, "none": ~text & ~image, "text": text}
        return {name: float(kept.float().mean()) for name, kept in both.items()}

    def test_conditions_go_missing_by_themselves_and_together(self) -> None:
        found = self.shares(Dropping(each=0.4, everything=0.1, nothing=0.1))
        expected = {"all": 0.1 + 0.8 * 0.36, "none": 0.1 + 0.8 * 0.16, "text": 0.1 + 0.8 * 0.6}
        assert found == pytest.approx(expected, abs=0.03)

    def test_the_shares_may_be_nothing_or_everything(self) -> None:
        assert self.shares(Dropping(0.0, 0.0, 0.0), 20)["all"] == 1
        assert self.shares(Dropping(0.0, 1.0, 0.0), 20)["none"] == 1
        assert self.shares(Dropping(1.0, 0.0, 1.0), 20)["all"] == 1


def samples_of(batch: Batch) -> list[Any]:
    """The samples, made distinct objects."""
    import copy

    batch.samples = [copy.copy(sample) for sample in batch.samples]
    return batch.samples
