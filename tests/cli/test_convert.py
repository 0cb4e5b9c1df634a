"""`vidgen convert`: a published checkpoint becomes the file that its method reads, whole or not at all."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from published_weights import published
from safetensors.torch import load_file
from torch import Tensor
from vidgen_streaming.published import read

from vidgen_core.cli import main
from vidgen_core.config import compose
from vidgen_core.run import generate


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("published") / "streaming_t2v.ckpt"
    torch.save({"state_dict": published(), "global_step": 3}, file)
    return file


@pytest.fixture(scope="module")
def converted(checkpoint: Path) -> Path:
    folder = checkpoint.parent / "some" / "converted"
    assert main(["convert", f"weights={checkpoint}", f"output.dir={folder}"]) == 0
    return folder / "methods" / "streaming.safetensors"


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["convert", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


class TestRoundTrip:
    def test_the_file_holds_what_the_checkpoint_holds(self, checkpoint: Path, converted: Path) -> None:
        (theirs, _), (ours, base) = read(checkpoint), read(converted)
        for part in ("own", "base", "image_encoder"):
            wanted, found = getattr(theirs, part), getattr(ours, part)
            assert wanted and wanted.keys() == found.keys()
            assert all(torch.equal(found[name], wanted[name]) for name in wanted)
        assert base == ""

    def test_the_method_makes_the_same_video_of_either(self, checkpoint: Path, converted: Path, tmp_path: Path) -> None:
        def latents(weights: Path) -> Tensor:
            folder = tmp_path / weights.stem
            asked = ["method=streaming", "model=tiny", "num_frames=6", "height=32", "width=32", "output.latents=true"]
            asked += ["num_inference_steps=1", "streaming.chunk=4", "streaming.overlap=2"]
            generate(compose([*asked, f"weights={weights}", f"output.dir={folder}"]))
            return load_file(folder / "latents.safetensors")["latents"]

        # To rounding: the two files lay the same numbers at other places of memory, where other kernels serve them.
        assert torch.allclose(latents(converted), latents(checkpoint), atol=1e-5)

    def test_it_is_told_what_was_left_out_how_it_is_used_and_where_it_lies(
        self, checkpoint: Path, tmp_path: Path, capsys
    ) -> None:
        code, out, _ = told(capsys, f"weights={checkpoint}", f"output.dir={tmp_path}")
        *lines, use, file = out.splitlines()
        assert code == 0
        assert f"the layout of 'streaming', {len(published())} tensors" in lines[0]
        assert [line[:25] for line in lines[1:]] == ["left out: 1 of 'vae.': a ", "left out: 1 of 'text_enco"]
        assert file == str(tmp_path / "methods" / "streaming.safetensors") and Path(file).is_file()
        assert (
            f"method=streaming model=modelscope weights={file} scheduler=ddim scheduler.eta=1 guidance_scale=7.5" in use
        )

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"unet.conv_in.weight": None}, "1 missing: cam.conv_in.weight"),
            ({"unet.foo": torch.ones(1)}, "1 unexpected: cam.foo"),
            ({"base_model.conv_out.bias": None}, "1 missing: conv_out.bias"),
            ({"base_model.conv_in.weight": None}, "holds no U-Net ('base_model.*') of ModelScope's kind"),
            ({"base_model.cross_attention_merger_": None}, "has no mergers"),
            ({"resampler.": None}, "its resampler is missing"),
        ],
    )
    def test_a_part_that_is_not_whole_is_named_and_nothing_is_written(
        self, tmp_path: Path, capsys, change: dict[str, Tensor | None], message: str
    ) -> None:
        ((name, tensor),) = change.items()
        left = {key: value for key, value in published().items() if not key.startswith(name)}
        torch.save(left if tensor is None else left | {name: tensor}, tmp_path / "odd.ckpt")
        code, _, said = told(capsys, f"weights={tmp_path / 'odd.ckpt'}", f"output.dir={tmp_path / 'out'}")
        assert code == 2 and message in " ".join(said.split())
        assert not (tmp_path / "out").exists()

    def test_tensors_that_share_memory_or_have_gaps_are_written_apart(self, tmp_path: Path) -> None:
        tensors = dict(published())
        one, other, turned = [name for name in tensors if re.search("^unet.*attn1.to_[qkv].weight", name)][:3]
        tensors[other], tensors[turned] = tensors[one], tensors[turned].T
        torch.save(tensors, tmp_path / "bare.pth")
        assert main(["convert", f"weights={tmp_path / 'bare.pth'}", f"output.dir={tmp_path / 'out'}"]) == 0
        (theirs, _), (ours, _) = read(tmp_path / "bare.pth"), read(tmp_path / "out" / "methods/streaming.safetensors")
        assert all(torch.equal(ours.own[name], theirs.own[name]) for name in theirs.own)


class Code:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("it_ran"),)


def truncated(file: Path) -> None:
    torch.save(published(), file)
    file.write_bytes(file.read_bytes()[:100_000])


WRONG: dict[str, tuple[Any, str]] = {
    "truncated": (truncated, "'{file}' cannot be read .* It is damaged"),
    "empty": (Path.touch, "'{file}' cannot be read .* It is damaged"),
    "code": (lambda file: torch.save({"state_dict": Code()}, file), "'{file}' cannot be read .* would run code"),
    "no tensors": (lambda file: torch.save({"state_dict": [1]}, file), "'{file}' holds no weights"),
    "unknown part": (
        lambda file: torch.save(published() | {"vfi.weight": torch.ones(1)}, file),
        "holds 1 tensors of no known part, first 'vfi.weight'",
    ),
    "another layout": (
        lambda file: torch.save({"model.weight": torch.ones(1)}, file),
        "'{file}' is in no layout .* those of .*streaming.* Its first tensor is 'model.weight'",
    ),
    "a folder": (Path.mkdir, "weights={file} is a folder.* model.path={file} reads it"),
    "absent": (lambda file: None, "weights={file}: there is no such file"),
}


class TestMistakes:
    @pytest.mark.parametrize("mistake", WRONG)
    def test_a_file_that_cannot_be_converted_is_one_paragraph_and_leaves_nothing(
        self, mistake: str, tmp_path: Path, monkeypatch, capsys
    ) -> None:
        make, message = WRONG[mistake]
        monkeypatch.chdir(tmp_path)
        file = tmp_path / "given.ckpt"
        make(file)
        before = list(tmp_path.rglob("*"))
        code, out, err = told(capsys, f"weights={file}", "output.dir=out/converted")
        assert (code, out) == (2, "")
        assert re.fullmatch(f"vidgen: .*{message.format(file=re.escape(str(file)))}.*\n", err)
        assert list(tmp_path.rglob("*")) == before

    def test_a_pickle_of_another_program_is_told_once_without_warnings_of_torch(self, tmp_path: Path, capsys) -> None:
        (tmp_path / "other.ckpt").write_bytes(pickle.dumps({"a": print}, protocol=4))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            code, _, err = told(capsys, f"weights={tmp_path / 'other.ckpt'}", f"output.dir={tmp_path / 'out'}")
        assert code == 2 and "a pickle that would run code" in err and err.count("\n") == 1
        assert [str(one.message) for one in warned if "pickle" in str(one.message)] == []

    def test_a_disk_that_refuses_leaves_nothing(self, checkpoint: Path, tmp_path: Path, monkeypatch, capsys) -> None:
        def full(tensors: Any, file: Path, *_: Any) -> None:
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(safetensors.torch, "save_file", full)
        code, _, err = told(capsys, f"weights={checkpoint}", f"output.dir={tmp_path / 'out'}")
        assert code == 1
        assert "the disk is full. Nothing was written; free some space there, or give another output.dir." in err
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_holds_something_stays_as_it_is(self, checkpoint: Path, tmp_path: Path, capsys) -> None:
        (tmp_path / "notes.txt").touch()
        code, _, err = told(capsys, f"weights={checkpoint}", f"output.dir={tmp_path}")
        assert code == 2
        assert "not empty. Give another output.dir." in err
        assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "vidgen convert weights=<file> output.dir=<folder>"),
            (["weights=a.ckpt"], "vidgen convert weights=<file> output.dir=<folder>"),
            (["weights=", "output.dir=b"], "vidgen convert weights=<file> output.dir=<folder>"),
            (["a.ckpt", "output.dir=b"], "Write: vidgen convert weights=a.ckpt"),
            (["weight=a.ckpt", "output.dir=b"], "no key 'weight'. Did you mean 'weights'?"),
            (["weights=a", "weights=b", "output.dir=c"], "weights= was written twice"),
        ],
    )
    def test_what_is_asked_must_be_clear(self, arguments: list[str], message: str, capsys) -> None:
        code, _, err = told(capsys, *arguments)
        assert code == 2
        assert message in err


CARD = """
from vidgen_core import Plugin
plugin = Plugin(name="x", summary="a test", package=__name__, is_method=False, converter=__name__ + ".layout.converted")
"""
LAYOUT = """
from vidgen_core.convert import Converted
def converted(tensors):
    if "theirs.weight" in tensors:
        left_out = {"ema.": "nobody reads it"}
        return Converted({"unet/ours.safetensors": {"weight": tensors["theirs.weight"]}}, "vidgen {folder}", left_out)
"""


class TestThirdParty:
    def test_a_plugin_converts_its_own_layout(self, install_plugin, tmp_path: Path, capsys) -> None:
        install_plugin("other", CARD, {"layout.py": LAYOUT})
        file = tmp_path / "theirs.pth"
        torch.save({"theirs.weight": torch.arange(3), "ema.a": torch.ones(1), "ema.b": torch.ones(1)}, file)
        code, out, _ = told(capsys, f"weights={file}", f"output.dir={tmp_path / 'out'}")
        assert code == 0
        assert "left out: 2 of 'ema.': nobody reads it\n" in out
        assert torch.equal(load_file(tmp_path / "out/unet/ours.safetensors")["weight"], torch.arange(3))

    def test_one_that_loses_tensors_is_named(self, install_plugin, tmp_path: Path, capsys) -> None:
        install_plugin("loser", CARD, {"layout.py": LAYOUT})
        torch.save({"theirs.weight": torch.ones(1), "theirs.bias": torch.ones(1)}, tmp_path / "theirs.pth")
        code, _, err = told(capsys, f"weights={tmp_path / 'theirs.pth'}", f"output.dir={tmp_path / 'out'}")
        assert code == 1
        assert "The converter of 'loser' neither writes nor leaves out 1 of the numbers in 2 tensors" in err
        assert not (tmp_path / "out").exists()
