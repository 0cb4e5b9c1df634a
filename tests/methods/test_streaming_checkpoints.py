"""StreamingT2V's weights: what is missing is named, what is there finds its place, and both stages write theirs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from streaming_runs import SIZE, TINY, made
from vidgen_streaming import published

from vidgen_core.cli import main
from vidgen_core.errors import BadRequest
from vidgen_core.models import tiny
from vidgen_core.models.tuned import is_over_time

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))
import published_weights


class TestCheckpoint:
    def test_keys_of_cam_that_are_missing_are_named(self, tmp_path: Path, capsys) -> None:
        trained = tmp_path / "trained.safetensors"
        save_file(self.networks(), trained)
        tensors = {name: tensor for name, tensor in load_file(trained).items() if name != "cam.conv_in.weight"}
        save_file(tensors, tmp_path / "cut.safetensors")
        asked = [*TINY, *SIZE, "num_frames=8", f"output.dir={tmp_path / 'out'}"]
        assert main([*asked, f"weights={trained}"]) == 0
        assert main([*asked, "output.overwrite=true", f"weights={tmp_path / 'cut.safetensors'}"]) == 2
        assert "1 missing: cam.conv_in.weight" in " ".join(capsys.readouterr().err.split())

    @pytest.mark.parametrize(
        ("lost", "message"),
        [
            (("cam.", "mergers."), "has no CAM: the encoder (published as 'unet.*') or its mergers are missing"),
            (("mixes.",), "has half of APM: its mixes are missing"),
            (("resampler.",), "has half of APM: its resampler is missing"),
        ],
    )
    def test_a_part_that_is_missing_is_named(self, tmp_path: Path, capsys, lost: tuple[str, ...], message: str) -> None:
        whole = self.networks(image_width=24)
        save_file({name: whole[name] for name in whole if not name.startswith(lost)}, tmp_path / "cut.safetensors")
        asked = [*TINY, *SIZE, "num_frames=6", f"output.dir={tmp_path / 'out'}"]
        assert main([*asked, f"weights={tmp_path / 'cut.safetensors'}"]) == 2
        assert message in " ".join(capsys.readouterr().err.split())

    def test_any_clip_vision_folder_encodes_the_anchor_if_its_width_is_that_of_the_weights(
        self, tmp_path: Path, capsys
    ) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
        for width in (24, 40):
            config = CLIPVisionConfig(**sizes, image_size=32, patch_size=8, projection_dim=width)
            CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / f"clip_{width}")
        save_file(self.networks(image_width=24), tmp_path / "trained.safetensors")
        asked = [*TINY, *SIZE, "num_frames=6", f"weights={tmp_path / 'trained.safetensors'}"]
        fits, other = (f"streaming.encoder={tmp_path / f'clip_{width}'}" for width in (24, 40))
        assert main([*asked, fits, f"output.dir={tmp_path / 'out'}"]) == 0
        capsys.readouterr()
        assert main([*asked, other, f"output.dir={tmp_path / 'other'}"]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "encoder makes 40 features, but these weights read 24" in said
        assert "streaming.encoder=" in said

    def test_the_first_chunk_is_made_by_the_model_and_the_others_by_its_tuned_layers(self, tmp_path: Path) -> None:
        layers = {
            f"denoiser.{name}": 3 * tensor.contiguous()
            for name, tensor in tiny.build().denoiser.state_dict().items()
            if name.endswith("attn2.to_v.weight") and not is_over_time(name)
        }
        save_file(self.networks(), tmp_path / "plain.safetensors")
        save_file(self.networks() | layers, tmp_path / "tuned.safetensors")

        def with_weights(name: str, *more: str) -> np.ndarray:
            folder = tmp_path / "-".join([name, *more])
            return made(folder, "num_frames=8", "output.crf=0", f"weights={tmp_path / name}.safetensors", *more)

        plain, tuned = with_weights("plain"), with_weights("tuned")
        assert (tuned[:4] == plain[:4]).all()
        assert (tuned[4:] != plain[4:]).any()
        assert (with_weights("tuned", "streaming.first_chunk=tuned")[:4] != plain[:4]).any()

    def test_the_released_model_says_how_it_was_sampled_unless_it_is(self, tmp_path: Path, capsys) -> None:
        save_file(published_weights.published(), tmp_path / "released.safetensors")
        released = (f"weights={tmp_path / 'released.safetensors'}", "num_frames=5")
        made(tmp_path / "otherwise", *released)
        assert f"sampled otherwise than here: {published.AS_PUBLISHED}." in capsys.readouterr().err
        made(tmp_path / "as", *released, *published.AS_PUBLISHED.split())
        assert "otherwise" not in capsys.readouterr().err

    def networks(self, image_width: int | None = None) -> dict[str, torch.Tensor]:
        from vidgen_streaming.networks import Networks

        made = Networks()
        made.add_cam(tiny.build().denoiser)
        if image_width is not None:
            made.add_apm(layers=4, text_tokens=77, text_width=32, image_width=image_width, hidden=8, gain=1.0)
        return {name: tensor.contiguous() for name, tensor in made.state_dict().items()}

    def test_parts_of_the_published_layout_find_their_places(self) -> None:
        merger = "base_model.cross_attention_merger_"
        names = {
            "unet.conv_in.weight": "cam.conv_in.weight",
            f"{merger}down_blocks.3.temporal_transformer.norm.weight": "mergers.down.3.norm.weight",
            f"{merger}mid_block.temporal_transformer.proj_out.bias": "mergers.mid.proj_out.bias",
            "resampler.context_embedding.2.bias": "resampler.2.bias",
            "base_model.down_blocks.0.attentions.1.transformer_blocks.0.attn2.alpha": "mixes.0.alpha",
            "base_model.mid_block.attentions.0.transformer_blocks.0.attn2.alpha": "mixes.1.alpha",
        }
        parts = published.sorted_parts({name: torch.zeros(1) for name in names})
        assert set(parts.own) == set(names.values())

    def test_a_part_that_nobody_knows_is_named(self) -> None:
        with pytest.raises(BadRequest, match="first 'vfi.weight'"):
            published.sorted_parts({"unet.a": torch.zeros(1), "vfi.weight": torch.zeros(1)})


class TestTraining:
    def test_both_stages_train_what_they_say_and_sample(self, tmp_path: Path) -> None:
        common = [
            *TINY,
            "data=moving_shapes_clips",
            "data.scenes=long",
            "streaming.embedding_widths=[8,8,8,8]",
            "trainer.batch_size=1",
            "trainer.workers=0",
            "trainer.max_steps=1",
            "trainer.accumulation=1",
            "method=[talc,streaming]",
        ]
        common = [argument for argument in common if argument != "method=streaming"]
        assert main(["train", *common, "streaming.stage=cam", f"output.dir={tmp_path / 'cam'}"]) == 0
        learnt = load_file(tmp_path / "cam/methods/streaming.safetensors")
        assert {name.partition(".")[0] for name in learnt} == {"cam", "mergers"}
        assert learnt["mergers.mid.proj_out.weight"].abs().max() > 0
        weights = f"weights.streaming={tmp_path / 'cam/methods/streaming.safetensors'}"
        assert (
            main(
                [
                    "train",
                    *common,
                    "streaming.stage=apm",
                    "streaming.hidden=8",
                    weights,
                    f"output.dir={tmp_path / 'apm'}",
                ]
            )
            == 0
        )
        learnt = load_file(tmp_path / "apm/methods/streaming.safetensors")
        assert {name.partition(".")[0] for name in learnt} == {"cam", "mergers", "resampler", "mixes", "denoiser"}
        assert not any("temp_" in name for name in learnt if name.startswith("denoiser."))
        assert all(learnt[f"mixes.{i}.alpha"].abs() > 0 for i in range(4))
        network = {name: tensor for name, tensor in learnt.items() if name.startswith("denoiser.")}
        for stage in (["streaming.stage=cam"], ["streaming.stage=apm", "streaming.freeze_base=true"]):
            tuned = [f"tuned={tmp_path / 'apm'}", f"output.dir={tmp_path / '_'.join(stage)}"]
            assert main(["train", *common, *stage, *tuned]) == 0
            later = load_file(tmp_path / "_".join(stage) / "methods/streaming.safetensors")
            assert later.keys() == learnt.keys()
            assert all(torch.equal(later[name], tensor) for name, tensor in network.items())
        made_with = f"weights={tmp_path / 'apm/methods/streaming.safetensors'}"
        assert main([*TINY, *SIZE, "num_frames=6", made_with, f"output.dir={tmp_path / 'out'}"]) == 0


def test_the_anchors_encoder_can_be_chosen(capsys) -> None:
    assert main([*TINY, *SIZE, "num_frames=6", "streaming.encoder=no/such/encoder"]) == 2
    assert "There is no image encoder in 'no/such/encoder'" in " ".join(capsys.readouterr().err.split())
