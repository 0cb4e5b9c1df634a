"""CLIP scores and a local judge, by tiny models of the real classes with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vidgen_moving_shapes.tokenizer import build_tokenizer

from vidgen_core.errors import BadRequest
from vidgen_core.metrics.clip import Clip, Consistency, TextScore, load
from vidgen_core.metrics.clip_edits import FrameConsistency, TextualFaithfulness
from vidgen_core.metrics.footage import Footage
from vidgen_core.metrics.judge import NoAnswer
from vidgen_core.metrics.judge_local import LocalModel
from vidgen_core.video_writer import VideoWriter

RED, BLUE = (220, 40, 40), (40, 40, 220)


def video(path: Path, *colours: tuple[int, int, int]) -> Footage:
    writer = VideoWriter(path, 8, {}, 0, 0)
    for colour in colours:
        writer.write(np.broadcast_to(np.array(colour, np.uint8), (2, 32, 32, 3)))
    writer.close()
    captions = tuple("a red circle" for _ in colours)
    return Footage(path.stem, path, captions, tuple(range(2 * i, 2 * i + 2) for i in range(len(colours))))


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> Clip:
    return load(str(clip_folder), "cpu")


def test_a_still_video_is_wholly_consistent_and_a_cut_is_not(clip, tmp_path) -> None:
    still = Consistency(clip).score(video(tmp_path / "still.mp4", RED, RED))["clip_consistency"]
    cut = Consistency(clip).score(video(tmp_path / "cut.mp4", RED, BLUE))["clip_consistency"]
    assert still == pytest.approx(1.0, abs=1e-4)
    assert cut is not None and cut < still - 1e-4


def test_the_text_score_is_the_cosine_that_transformers_computes(
    clip, clip_folder, picture_processor, tmp_path
) -> None:
    from transformers import AutoTokenizer, CLIPModel

    footage = video(tmp_path / "red.mp4", RED)
    model = CLIPModel.from_pretrained(clip_folder).eval()
    pixels = picture_processor.from_pretrained(clip_folder)(images=list(footage.frames), return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(clip_folder)(list(footage.captions), return_tensors="pt")
    named = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        whole = model(**named, **pixels)
    expected = float((whole.image_embeds @ whole.text_embeds.T).mean())
    assert TextScore(clip).score(footage)["clip_text"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("side", [480, 0])
def test_the_scores_of_edits_are_those_of_the_published_script(
    clip, clip_folder, picture_processor, tmp_path, side
) -> None:
    """That script resizes Pillow images with the default filter, and leaves the diagonal out of a matrix of cosines."""
    from PIL import Image
    from transformers import AutoTokenizer, CLIPModel

    footage = video(tmp_path / "three.mp4", RED, BLUE, (40, 200, 40))
    pictures = [Image.fromarray(frame) for frame in footage.frames]
    if side:
        pictures = [picture.resize((side, side)) for picture in pictures]
    model = CLIPModel.from_pretrained(clip_folder).eval()
    pixels = picture_processor.from_pretrained(clip_folder)(images=pictures, return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(clip_folder)([footage.captions[0]], return_tensors="pt")
    with torch.no_grad():
        whole = model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, **pixels)
    cosines = (whole.image_embeds @ whole.image_embeds.T).fill_diagonal_(0)
    consistency = float(cosines.sum()) / (6 * 5)
    assert FrameConsistency(clip, side).score(footage)["frame_consistency"] == pytest.approx(consistency, abs=1e-5)
    faithful = TextualFaithfulness(clip, side).score(footage)["textual_faithfulness"]
    assert faithful == pytest.approx(float(whole.logits_per_image.mean()) / 100, abs=1e-5)


def test_all_pairs_count_and_a_single_frame_is_wholly_consistent(clip, tmp_path) -> None:
    cut = video(tmp_path / "cut.mp4", RED, RED, BLUE, BLUE)
    neighbours = Consistency(clip).score(cut)["clip_consistency"]
    assert neighbours is not None
    assert FrameConsistency(clip).score(cut)["frame_consistency"] < neighbours - 1e-4
    single = replace(cut, path=tmp_path / "single.mp4")
    vars(single)["frames"] = cut.frames[:1]
    assert FrameConsistency(clip).score(single) == {"frame_consistency": 1.0}


def test_captions_of_another_world_than_the_models_are_told_once(clip_folder, tmp_path, capsys) -> None:
    for metric in (TextScore, Consistency):
        clip = load(str(clip_folder), "cpu")
        metric(clip).score(video(tmp_path / "known.mp4", RED))
        assert not capsys.readouterr().err
        for name in ("a", "b"):
            metric(clip).score(replace(video(tmp_path / f"{name}.mp4", RED), captions=("A dog on a red beach.",)))
        assert capsys.readouterr().err.count("does not know 'dog', 'beach': its scores") == 1


def test_what_is_no_clip_model_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadRequest, match="is no CLIP model"):
        load(str(tmp_path), "cpu")


@pytest.fixture(scope="module")
def judge_folder(tmp_path_factory: pytest.TempPathFactory, picture_processor: Any) -> Path:
    """A LLaVA of two narrow towers, with its processor and chat template."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    folder = tmp_path_factory.mktemp("judge")
    tokenizer = build_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**size, image_size=32, patch_size=16),
        text_config=LlamaConfig(**size, vocab_size=len(tokenizer), num_key_value_heads=2),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %} {% endfor %}{% endfor %}"
    )
    LlavaProcessor(
        image_processor=picture_processor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)
    return folder


def test_a_local_model_looks_at_every_frame_and_answers(judge_folder) -> None:
    speaker = LocalModel.load(str(judge_folder), "cpu", "fp32")
    frames = [np.full((24, 40, 3), shade, np.uint8) for shade in (0, 250)]
    one = speaker.answer(["a red circle", frames[0]], 5)
    two = speaker.answer(["a red circle", *frames], 5)
    assert two.tokens_in - one.tokens_in == 4  # the patches of one more frame
    assert 1 <= one.tokens_out <= 5
    assert speaker.answer(["a red circle", frames[0]], 5) == one


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), ValueError("too many frames")])
def test_a_message_that_is_too_much_for_a_local_model_has_no_answer(judge_folder, monkeypatch, error) -> None:
    def too_much(*args: Any, **kwargs: Any) -> Any:
        raise error

    speaker = LocalModel.load(str(judge_folder), "cpu", "fp32")
    monkeypatch.setattr(speaker._model, "generate", too_much)
    with pytest.raises(NoAnswer, match=str(error)):
        speaker.answer(["a red circle"], 5)


def test_a_model_that_is_none_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadRequest, match="cannot be loaded as a vision-language model"):
        LocalModel.load(str(tmp_path), "cpu")
