"""StreamingT2V: chunks, what they remember, how long videos begin, go on and end, and what is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from streaming_runs import SIZE, TINY, made
from vidgen_streaming import cam
from vidgen_streaming.chunks import chunks
from vidgen_streaming.memory import FrameMemory

from vidgen_core import api, hookimpl
from vidgen_core.attention import attentions
from vidgen_core.cli import main
from vidgen_core.config import compose
from vidgen_core.models import tiny
from vidgen_core.models.backbone import Backbone
from vidgen_core.provenance import read_provenance
from vidgen_core.run import Window, generate
from vidgen_core.video import read_video


def spans(num_frames: int, **options: object) -> list[tuple[range, range]]:
    groups = chunks(num_frames, 16, 8, **options)  # type: ignore[arg-type]
    return [(window.span, window.keep) for group in groups for window in group.windows]


class TestChunks:
    def test_every_chunk_begins_with_known_frames_and_keeps_the_others(self) -> None:
        assert spans(32) == [
            (range(16), range(16)),
            (range(8, 24), range(16, 24)),
            (range(16, 32), range(24, 32)),
        ]

    @pytest.mark.parametrize("frames", [1, 7, 16, 17, 23, 24, 37, 600])
    def test_any_number_of_frames_is_kept_exactly(self, frames: int) -> None:
        kept = [frame for _, keep in spans(frames) for frame in keep]
        assert kept == list(range(frames))

    def test_chunks_are_as_long_as_the_model_knows_whatever_is_kept(self) -> None:
        assert {len(span) for span, _ in spans(37)} == {16}


class TestMemory:
    def test_it_holds_the_last_frames_and_the_first_and_never_more(self) -> None:
        memory = FrameMemory(3, "first")
        video = torch.rand(1, 12, 3, 4, 4)
        for start in range(0, 12, 4):
            memory.remember(video[:, start : start + 4])
        recalled = memory.recall()
        assert recalled is not None
        assert torch.equal(recalled.frames, video[:, 9:] * 2 - 1)
        assert torch.equal(recalled.anchor, video[:, 0] * 2 - 1)
        assert memory.last is not None
        assert memory.last.untyped_storage().nbytes() == video[:, 9:].numel() * 4

    def test_the_anchor_may_move_on(self) -> None:
        memory = FrameMemory(2, "last_chunk")
        video = torch.rand(1, 8, 3, 4, 4)
        for start in (0, 4):
            memory.remember(video[:, start : start + 4])
            recalled = memory.recall()
            assert recalled is not None
            assert torch.equal(recalled.anchor, video[:, start + 3] * 2 - 1)

    def test_what_begins_with_one_image_stood_still_before(self) -> None:
        memory = FrameMemory(3, "first")
        image = torch.rand(1, 1, 3, 4, 4)
        memory.remember(image)
        recalled = memory.recall()
        assert recalled is not None
        assert torch.equal(recalled.frames, (image * 2 - 1).expand(-1, 3, -1, -1, -1))


class TestModel:
    def test_before_training_cam_changes_nothing(self) -> None:
        unet = tiny.build().denoiser
        sample, text = torch.randn(1, 4, 4, 8, 8), torch.randn(1, 77, 32)
        mergers = cam.Mergers(unet).eval()
        mergers.reset()
        found = cam.Features(
            tuple(torch.randn(2, c, s, s) for c, s in ((32, 8), (32, 8), (32, 4), (64, 4))), torch.randn(2, 64, 4, 4)
        )
        with torch.inference_mode():
            plain = unet(sample, 5, text).sample
            with cam.merged(unet, mergers, torch.nn.functional.scaled_dot_product_attention, lambda x, t: found):
                merged = unet(sample, 5, text).sample
            after = unet(sample, 5, text).sample
        assert torch.equal(merged, plain)
        assert torch.equal(after, plain)

    def test_there_is_a_merger_for_every_skip(self) -> None:
        unet = tiny.build().denoiser
        counts = []
        handles = [
            block.register_forward_pre_hook(
                lambda m, a, k: counts.append(len(k["res_hidden_states_tuple"])), with_kwargs=True
            )
            for block in unet.up_blocks
        ]
        with torch.inference_mode():
            unet(torch.randn(1, 4, 2, 8, 8), 5, torch.randn(1, 77, 32))
        for handle in handles:
            handle.remove()
        assert len(cam.skip_channels(unet)) == sum(counts)


class TestVideos:
    def test_a_long_video_has_as_many_frames_as_were_asked_for(self, tmp_path: Path) -> None:
        assert len(made(tmp_path / "out", "num_frames=11")) == 11

    def test_each_memory_changes_what_follows_and_not_the_first_chunk(self, tmp_path: Path) -> None:
        both = made(tmp_path / "both", "num_frames=8", "output.crf=0")
        for part in ("cam", "apm"):
            without = made(tmp_path / part, "num_frames=8", "output.crf=0", f"streaming.{part}=false")
            assert np.array_equal(both[:4], without[:4])
            assert not np.array_equal(both[4:], without[4:])

    def test_the_order_of_methods_changes_nothing(self, tmp_path: Path) -> None:
        story = ['prompt=["a", "b"]', "num_frames=10", "output.latents=true"]
        for order in ("talc,streaming", "streaming,talc"):
            generate(compose([f"method=[{order}]", *TINY[1:], *SIZE, *story, f"output.dir={tmp_path / order}"]))
        one, other = (
            load_file(tmp_path / order / "latents.safetensors")["latents"]
            for order in ("talc,streaming", "streaming,talc")
        )
        assert torch.equal(one, other)

    def test_a_chunk_that_straddles_two_scenes_reads_both_captions(self, tmp_path: Path) -> None:
        def latents(name: str, prompt: str) -> torch.Tensor:
            story = [f"prompt={prompt}", "num_frames=6", "output.latents=true", "talc.scene_frames=[5,1]"]
            generate(compose(["method=[talc,streaming]", *TINY[1:], *SIZE, *story, f"output.dir={tmp_path / name}"]))
            return load_file(tmp_path / name / "latents.safetensors")["latents"]

        one, other = latents("one", '["a", "b"]'), latents("other", '["a", "c"]')
        assert torch.equal(one[:, :, :4], other[:, :, :4])
        assert not torch.equal(one[:, :, 4:], other[:, :, 4:])

    def test_an_image_is_the_first_frame(self, tmp_path: Path) -> None:
        image = np.full((32, 32, 3), 200, np.uint8)
        Image.fromarray(image).save(tmp_path / "start.png")
        video = made(tmp_path / "out", "num_frames=5", f"image={tmp_path / 'start.png'}", "output.crf=0")
        assert len(video) == 5
        assert np.abs(video[0].astype(int) - 200).max() <= 3

    def test_an_image_is_upright_on_black_and_may_lie_at_home(self, tmp_path: Path, monkeypatch) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6  # a quarter turn
        lying = Image.new("RGB", (32, 32), (200, 0, 0))
        lying.paste((0, 200, 0), (0, 0, 16, 32))
        lying.save(tmp_path / "turned.png", exif=exif)
        Image.new("RGBA", (32, 32), (200, 200, 200, 0)).save(tmp_path / "clear.png")
        monkeypatch.setenv("HOME", str(tmp_path))
        for name, half, wanted in (("turned", slice(0, 12), (0, 200, 0)), ("clear", slice(None), (0, 0, 0))):
            asked = ["num_frames=5", f"image=~/{name}.png", "output.crf=0"]
            first = made(tmp_path / name, *asked)[0].astype(int)
            assert np.abs(first[half] - wanted).max() <= 8

    def test_a_video_at_home_goes_on(self, tmp_path: Path, monkeypatch) -> None:
        made(tmp_path, "num_frames=4")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert len(made(tmp_path / "out", "num_frames=5", "video=~/video.mp4")) == 5

    def test_a_video_goes_on_and_its_frames_are_left_as_they_are(self, tmp_path: Path) -> None:
        begun = made(tmp_path / "begun", "num_frames=6", "output.crf=0")
        video = made(tmp_path / "out", "num_frames=9", f"video={tmp_path / 'begun' / 'video.mp4'}", "output.crf=0")
        assert len(video) == 9
        # Both files hold colours at half resolution.
        assert np.abs(video[:6].astype(int) - begun).mean() <= 3
        # What was given is one piece: seams and stagnation are of the chunks that were made.
        assert read_provenance(tmp_path / "out/run.yaml")["window_frames"] == [6, 2, 1]

    def test_a_killed_run_goes_on_to_the_same_frames(self, tmp_path: Path) -> None:
        asked = [*TINY, *SIZE, "num_frames=10", "output.latents=true"]
        code = f"""
import os, signal
from vidgen_core import hookimpl
from vidgen_core.config import compose
from vidgen_core.provenance import read_provenance
from vidgen_core.run import Window, generate
class Kills:
    @hookimpl
    def on_step(self, window):
        if window.index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
generate(compose({[*asked, f"output.dir={tmp_path / 'out'}"]!r}), {{"kills": Kills()}})
"""
        assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -signal.SIGKILL
        assert len(read_video(tmp_path / "out/video.mp4")) == 5
        generate(compose([*asked, f"output.dir={tmp_path / 'out'}", "resume=true"]))
        generate(compose([*asked, f"output.dir={tmp_path / 'whole'}"]))
        assert (tmp_path / "out/latents.safetensors").read_bytes() == (
            tmp_path / "whole/latents.safetensors"
        ).read_bytes()
        assert len(read_video(tmp_path / "out/video.mp4")) == 10

    @pytest.mark.parametrize("mode", ["independent", "last_frame"])
    def test_the_baselines_make_as_many_frames_and_load_no_weights(self, tmp_path: Path, mode: str) -> None:
        assert len(made(tmp_path / "out", "num_frames=9", f"streaming.mode={mode}")) == 9


class TestWork:
    def test_what_stays_is_computed_once_and_known_frames_once_a_chunk(self, monkeypatch) -> None:
        from vidgen_streaming.apm import Mix
        from vidgen_streaming.cam import FrameEmbedding

        from vidgen_core.attention import TextCrossAttention
        from vidgen_core.models.backbone import Backbone
        from vidgen_core.models.image_encoder import ImageEncoder

        calls = {ImageEncoder.encode: 0, FrameEmbedding.forward: 0, Mix.forward: 0, Backbone.encode_text: 0}
        projected: Counter[int] = Counter()
        project = TextCrossAttention.project

        def projects(self, attention, *text):
            projected[id(attention)] += 1
            return project(self, attention, *text)

        monkeypatch.setattr(TextCrossAttention, "project", projects)

        def counted(cls, name):
            original = getattr(cls, name)

            def call(self, *args, **kwargs):
                calls[original] += 1
                return original(self, *args, **kwargs)

            monkeypatch.setattr(cls, name, call)

        counted(ImageEncoder, "encode")
        counted(FrameEmbedding, "forward")
        counted(Mix, "forward")
        counted(Backbone, "encode_text")
        api.generate(
            **{
                "method": "streaming",
                "model": "tiny",
                "prompt": "a",
                "num_frames": 10,
                "height": 32,
                "width": 32,
                "num_inference_steps": 3,
                "streaming": {"chunk": 4, "overlap": 2},
            }
        )
        layers = [name for name, module in attentions(tiny.build().denoiser) if module.is_cross_attention]
        assert list(calls.values()) == [1, 3, len(layers), 2]  # two texts: the prompt and the negative one
        # Keys and values: CAM's once; the model's twice, for the first chunk has no anchor to mix in.
        copied = [name for name in layers if not name.startswith("up_blocks")]
        assert sorted(projected.values()) == [1] * len(copied) + [2] * len(layers)

    def test_a_video_and_its_refinement_by_the_same_model_do_not_project_texts_again(
        self, tmp_path: Path, monkeypatch
    ) -> None:
        from vidgen_core.attention import TextCrossAttention

        calls, project = [], TextCrossAttention.project
        monkeypatch.setattr(
            TextCrossAttention, "project", lambda self, *given: calls.append(self) or project(self, *given)
        )
        refine = ["streaming.refine=true", "streaming.refine_chunk=4", "streaming.refine_overlap=2"]
        counts = []
        for frames in (8, 14):
            calls.clear()
            made(tmp_path / str(frames), *refine, "streaming.refine_steps=1", f"num_frames={frames}")
            counts.append(len(calls))
        assert counts[0] == counts[1]

    @pytest.mark.parametrize(
        ("more", "encoded"), [([], 0), (["output.latents=true"], 2), (["streaming.mode=last_frame"], 2)]
    )
    def test_given_frames_are_encoded_only_where_their_latents_are_asked_for(
        self, tmp_path: Path, monkeypatch, more: list[str], encoded: int
    ) -> None:
        begun = made(tmp_path / "begun", "num_frames=6", "output.crf=0")
        frames, encode = [], Backbone.to_latents
        monkeypatch.setattr(
            Backbone, "to_latents", lambda self, given, at_once: frames.append(given) or encode(self, given, at_once)
        )
        asked = ["num_frames=9", f"video={tmp_path / 'begun/video.mp4'}", *more]
        assert len(made(tmp_path / "out", *asked)) == 9
        assert len(frames) == encoded  # windows of 4 and 2 frames
        if "output.latents=true" in more:
            latents = load_file(tmp_path / "out/latents.safetensors")["latents"]
            assert latents.shape == (1, 4, 9, 4, 4)
            known = torch.from_numpy(begun[:4]).permute(0, 3, 1, 2)[None] / 255
            assert torch.allclose(latents[:, :, :4], encode(tiny.build(), known, 1), atol=0.5)

    def test_a_resume_encodes_given_frames_only_where_it_is_asked_for_latents(
        self, tmp_path: Path, monkeypatch
    ) -> None:
        made(tmp_path / "begun", "num_frames=6", "output.crf=0")
        asked = [*TINY, *SIZE, "num_frames=9", f"video={tmp_path / 'begun/video.mp4'}"]

        class Stops:
            @hookimpl
            def on_step(self, window: Window) -> None:
                raise KeyboardInterrupt

        for folder in ("out", "other"):
            with pytest.raises(KeyboardInterrupt):
                generate(compose([*asked, f"output.dir={tmp_path / folder}"]), {"stops": Stops()})
        frames, encode = [], Backbone.to_latents
        monkeypatch.setattr(
            Backbone, "to_latents", lambda self, given, at_once: frames.append(given) or encode(self, given, at_once)
        )
        generate(compose([*asked, f"output.dir={tmp_path / 'out'}", "resume=true"]))
        assert not frames
        generate(compose([*asked, f"output.dir={tmp_path / 'other'}", "resume=true", "output.latents=true"]))
        assert load_file(tmp_path / "other/latents.safetensors")["latents"].shape == (1, 4, 9, 4, 4)


class TestBadInput:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["num_frames=0"], "num_frames=0 must be at least 1"),
            (["streaming.embedding_widths=[16,32,64]"], "one cell of 8 pixels, for which the frame embedding takes 4"),
            (["num_frames=-8"], "num_frames=-8 must be at least 1"),
            (["streaming.overlap=4"], "streaming.overlap=4 must be less than streaming.chunk=4"),
            (["streaming.overlap=0"], "streaming.overlap=0 must be at least 1"),
            (["image=nothing.png"], "nothing.png"),
            (["weights=nothing.ckpt"], "there is no such file"),
        ],
    )
    def test_a_mistake_is_one_paragraph(self, capsys, arguments: list[str], message: str) -> None:
        given = dict(argument.split("=", 1) for argument in [*TINY, *arguments])
        assert main([f"{key}={value}" for key, value in given.items()]) == 2
        assert message in " ".join(capsys.readouterr().err.split())

    def test_an_image_of_another_size_is_refused_with_the_mend(self, tmp_path: Path, capsys) -> None:
        Image.new("RGB", (48, 40)).save(tmp_path / "start.png")
        asked = [*TINY, *SIZE, f"image={tmp_path / 'start.png'}", f"output.dir={tmp_path / 'out'}"]
        assert main(asked) == 2
        assert "height=40 width=48, or let it be scaled: streaming.fit=resize_center" in " ".join(
            capsys.readouterr().err.split()
        )
        assert main([*asked, "streaming.fit=resize_center", "num_frames=4"]) == 0

    def test_a_video_that_is_shorter_than_the_overlap_is_refused(self, tmp_path: Path, capsys) -> None:
        made(tmp_path / "short", "num_frames=1")
        capsys.readouterr()
        assert main([*TINY, *SIZE, f"video={tmp_path / 'short' / 'video.mp4'}"]) == 2
        assert "has 1 frames, but a chunk must see 2 known ones" in " ".join(capsys.readouterr().err.split())

    def test_two_planners_are_refused_by_name(self, capsys) -> None:
        assert main(["method=[talc,streaming]", *TINY[1:], "talc.mode=separate", 'prompt=["a","b"]']) == 2
        assert "'talc' and 'streaming' both want to own 'plan'" in capsys.readouterr().err

    def test_a_model_that_brings_no_weights_is_refused_with_the_command_that_trains_them(
        self, tmp_path: Path, capsys
    ) -> None:
        tiny.build().save(tmp_path / "model", torch.float32)
        asked = [
            "method=streaming",
            "model=modelscope",
            f"model.path={tmp_path / 'model'}",
            "prompt=a",
            *SIZE,
            "num_frames=4",
        ]
        assert main([*asked, f"output.dir={tmp_path / 'out'}"]) == 2
        assert "vidgen train method=streaming streaming.stage=cam" in capsys.readouterr().err

    def test_null_takes_not_even_the_weights_that_the_model_brings(self, tmp_path: Path, capsys) -> None:
        asked = ["method=streaming", "num_frames=20", "num_inference_steps=1", f"output.dir={tmp_path / 'out'}"]
        assert main([*asked, "weights.streaming=null"]) == 2
        assert "needs weights that were trained for this model" in " ".join(capsys.readouterr().err.split())
