"""A run's folder: what it holds, what is never overwritten, and how an unfinished run goes on."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import yaml

from vidgen_core import cli, hookimpl
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest, VidgenError
from vidgen_core.provenance import read_provenance
from vidgen_core.run import generate
from vidgen_core.video import read_video

SMALL = ["model=tiny", "height=32", "width=32", "num_inference_steps=2"]
STORY = [*SMALL, "method=talc", "talc.mode=separate", "talc.scene_frames=3", 'prompt=["one","two","three"]']


def run(folder, *arguments: str, observers=None):
    return generate(compose([*arguments, f"output.dir={folder}"]), observers)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_run_writes_video_sheet_and_record_and_names_them(tmp_path) -> None:
    files = run(tmp_path / "out", *SMALL, "prompt=a dog", "num_frames=4")
    assert [file.name for file in files] == ["video.mp4", "contact_sheet.png", "run.yaml"]
    assert names(tmp_path / "out") == ["contact_sheet.png", "run.yaml", "video.mp4"]
    assert read_video(files[0]).shape == (4, 32, 32, 3)


NASTY = 'it\'s a "dog", a cat (red): yes = ${x} $HOME [a, {b}] \\ #1 % 狗 🐶 \n second line'


def test_the_record_holds_the_prompt_as_it_was_in_the_video_too(tmp_path) -> None:
    run(tmp_path, *SMALL, f"prompt={NASTY}", "num_frames=1", "output.overwrite=true")
    inside, beside = read_provenance(tmp_path / "video.mp4"), read_provenance(tmp_path / "run.yaml")
    assert inside["config"]["prompt"] == beside["config"]["prompt"] == NASTY
    assert inside["config"] == beside["config"]
    assert set(beside["versions"]) >= {"vidgen", "torch", "diffusers", "transformers", "python"}
    assert beside["config"]["seed"] == 0 and "weights" in beside


def test_a_replay_gives_the_same_latents_bit_for_bit(tmp_path, capsys) -> None:
    run(tmp_path / "a", *SMALL, "prompt=a dog", "num_frames=3", "seed=5", "output.latents=true")
    assert cli.main(["replay", str(tmp_path / "a" / "video.mp4"), f"output.dir={tmp_path / 'b'}"]) == 0
    assert (tmp_path / "a/latents.safetensors").read_bytes() == (tmp_path / "b/latents.safetensors").read_bytes()
    assert np.array_equal(read_video(tmp_path / "a/video.mp4"), read_video(tmp_path / "b/video.mp4"))


def test_a_replay_keeps_the_placement_that_was_chosen(tmp_path, monkeypatch) -> None:
    from vidgen_core import placement

    monkeypatch.setattr(placement, "free_memory", lambda device: 1000)
    run(tmp_path / "a", *SMALL, "prompt=a dog", "num_frames=3", "output.latents=true")
    assert read_provenance(tmp_path / "a/run.yaml")["placement"]["guidance"] == "two_pass"
    monkeypatch.undo()
    assert cli.main(["replay", str(tmp_path / "a/run.yaml"), f"output.dir={tmp_path / 'b'}"]) == 0
    assert read_provenance(tmp_path / "b/run.yaml")["placement"]["guidance"] == "two_pass"
    assert (tmp_path / "a/latents.safetensors").read_bytes() == (tmp_path / "b/latents.safetensors").read_bytes()


def test_options_write_gif_frames_latents_and_previews(tmp_path) -> None:
    wanted = ["output.gif=true", "output.frames=true", "output.latents=true", "output.preview_every=1"]
    run(tmp_path / "out", *SMALL, "prompt=a dog", "num_frames=3", *wanted)
    assert set(names(tmp_path / "out")) == {
        "contact_sheet.png", "frames", "latents.safetensors", "preview.png", "run.yaml", "video.gif", "video.mp4",
    }  # fmt: skip
    from safetensors.torch import load_file

    assert load_file(tmp_path / "out/latents.safetensors")["latents"].shape == (1, 4, 3, 4, 4)


def test_several_videos_have_a_folder_each(tmp_path) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({"first one": ["a dog"], "second": ["a cat"]}))
    run(tmp_path / "out", *SMALL, f"prompts_file={prompts}", "num_frames=2", "batch_size=2")
    assert names(tmp_path / "out") == ["first one", "run.yaml", "second"]
    alone = run(tmp_path / "alone", *SMALL, f"prompts_file={prompts}", "num_frames=2", "batch_size=1")
    for name in ("first one", "second"):
        together, single = (read_video(tmp_path / place / name / "video.mp4") for place in ("out", "alone"))
        assert np.abs(together.astype(int) - single).max() <= 2
    assert len(alone) == 5


@pytest.mark.parametrize("content", ["run.yaml", "holiday.mp4"])
def test_nothing_is_overwritten_silently(tmp_path, content) -> None:
    (tmp_path / content).write_text("config: {}")
    with pytest.raises(BadRequest, match="output.overwrite=true"):
        run(tmp_path, *SMALL, "prompt=a dog")
    assert names(tmp_path) == [content]


def test_every_run_has_a_folder_of_its_own(tmp_path) -> None:
    for _ in range(2):
        generate(compose([*SMALL, "prompt=a dog", "num_frames=1", f"output.root={tmp_path}"]))
    assert len(names(tmp_path)) == 2


class Stops:
    """Ends the run with an error before a window."""

    def __init__(self, window: int, error: BaseException) -> None:
        self.window, self.error = window, error

    @hookimpl
    def on_step(self, window):
        if window.index == self.window:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("boom")])
def test_an_interrupted_run_keeps_its_finished_windows_and_goes_on(tmp_path, error) -> None:
    with pytest.raises(type(error)):
        run(tmp_path / "out", *STORY, observers={"stops": Stops(2, error)})
    assert len(read_video(tmp_path / "out/video.mp4")) == 6
    windows = []

    class Counts:
        @hookimpl
        def on_step(self, window):
            windows.append(window.index)

    run(tmp_path / "out", *STORY, "resume=true", observers={"counts": Counts()})
    assert windows == [2, 2]
    run(tmp_path / "whole", *STORY)
    resumed, whole = read_video(tmp_path / "out/video.mp4"), read_video(tmp_path / "whole/video.mp4")
    assert len(resumed) == 9 and np.array_equal(resumed[:6], whole[:6])
    assert np.abs(resumed.astype(int) - whole).mean() < 2
    assert names(tmp_path / "out") == ["contact_sheet.png", "run.yaml", "video.mp4"]


def test_a_killed_run_goes_on_from_the_last_window_that_was_finished(tmp_path) -> None:
    code = f"""
import os, signal
from vidgen_core import hookimpl
from vidgen_core.config import compose
from vidgen_core.run import generate
class Kills:
    @hookimpl
    def on_step(self, window):
        if window.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
generate(compose({[*STORY, f"output.dir={tmp_path / 'out'}"]!r}), {{"kills": Kills()}})
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == -9
    assert len(read_video(tmp_path / "out/video.mp4")) == 2
    run(tmp_path / "out", *STORY, "resume=true", "output.latents=true")
    assert len(read_video(tmp_path / "out/video.mp4")) == 9
    run(tmp_path / "whole", *STORY, "output.latents=true")
    assert (tmp_path / "out/latents.safetensors").read_bytes() == (tmp_path / "whole/latents.safetensors").read_bytes()


def test_a_resumed_run_lets_methods_remember_earlier_windows(tmp_path) -> None:
    with pytest.raises(RuntimeError):
        run(tmp_path, *STORY, observers={"stops": Stops(2, RuntimeError())})
    remembered = []

    class Remembers:
        @hookimpl
        def remember(self, window, latents, frames):
            remembered.append((window.index, tuple(latents.shape), tuple(frames.shape)))

    run(tmp_path, *STORY, "resume=true", observers={"remembers": Remembers()})
    assert remembered == [(i, (1, 4, 3, 4, 4), (1, 3, 3, 32, 32)) for i in range(3)]


def test_a_resume_with_another_configuration_names_what_differs(tmp_path) -> None:
    with pytest.raises(RuntimeError):
        run(tmp_path, *STORY, observers={"stops": Stops(1, RuntimeError())})
    with pytest.raises(BadRequest, match="started with another seed"):
        run(tmp_path, *STORY, "resume=true", "seed=9")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume=true", "output.dir={}/new"], "holds no run"),
        (["resume=true"], "needs the folder of the unfinished run"),
    ],
)
def test_a_resume_without_a_run_is_refused(tmp_path, arguments, message) -> None:
    with pytest.raises(BadRequest, match=message):
        generate(compose([*SMALL, "prompt=a", *(a.format(tmp_path) for a in arguments)]))


def test_an_unwritable_folder_is_found_before_any_weight_loads(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("vidgen_core.models.tiny.build", lambda **_: pytest.fail("weights were loaded"))
    with pytest.raises(VidgenError, match=r"cannot be written.*output.dir"):
        run(tmp_path / "file" / "out", *SMALL, "prompt=a dog")


def test_a_run_that_made_nothing_leaves_the_folder_free(tmp_path) -> None:
    with pytest.raises(BadRequest, match="There is no model folder 'nowhere'"):
        run(tmp_path / "out", *SMALL[1:], "prompt=a dog", "model=modelscope", "model.path=./nowhere")
    assert not (tmp_path / "out").exists()
    run(tmp_path / "out", *SMALL, "prompt=a dog", "num_frames=1")


def test_control_c_exits_130_with_one_paragraph(tmp_path, monkeypatch, capsys) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("vidgen_core.run.frames", interrupted)
    assert cli.main([*SMALL, "prompt=a dog", f"output.dir={tmp_path}"]) == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith("vidgen: Interrupted")


def test_the_contact_sheet_shows_frames_of_every_scene(tmp_path) -> None:
    from PIL import Image

    from vidgen_core.contact_sheet import TILE, ContactSheet
    from vidgen_core.request import Scene

    sheet = ContactSheet(tmp_path / "sheet.png", [Scene("red", 0, 300), Scene("blue", 300, 600)])
    for index in range(600):
        frame = np.zeros((1, 16, 16, 3), np.uint8)
        frame[..., 0 if index < 300 else 2] = 255
        sheet.write(frame)
    assert len(sheet._tiles) <= 97
    sheet.close()
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    red, blue = ((pixels == colour).all(-1).sum() for colour in ((255, 0, 0), (0, 0, 255)))
    assert red == blue == 8 * TILE * TILE


def test_the_record_is_plain_yaml(tmp_path) -> None:
    run(tmp_path / "out", *SMALL, "prompt=a dog", "num_frames=1")
    assert yaml.safe_load((tmp_path / "out/run.yaml").read_text())["config"]["model"]["family"] == "unet3d"
