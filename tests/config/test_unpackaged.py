"""A bare Python file and an object are methods on equal footing: options, checks, records and replays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vidgen_core import Plugin, api, cli, hookimpl
from vidgen_core.config import compose, recompose
from vidgen_core.errors import BadRequest
from vidgen_core.instantiate import built_methods
from vidgen_core.provenance import read_provenance
from vidgen_core.run import moments_of
from vidgen_core.run_folder import differences

IDEA = """\
from vidgen_core import hookimpl

class Idea:
    def __init__(self, strength: float = 1, mode="a", sizes=(1, 2)):
        self.strength, self.mode, self.sizes = strength, mode, sizes

    @hookimpl
    def after_step(self, step, latents):
        return latents.lerp(latents.mean(2, keepdim=True), self.strength)
"""
SMALL = {"model": "tiny", "num_frames": 3, "height": 32, "width": 32, "num_inference_steps": 2, "prompt": "a, b"}


@pytest.fixture
def file(tmp_path: Path):
    """``file(source, name)``: a Python file of that source."""

    def write(source: str = IDEA, name: str = "idea.py") -> Path:
        path = tmp_path / name
        path.write_text(source)
        return path

    return write


class Still:
    """Every frame is the mean of all."""

    @hookimpl
    def after_step(self, latents: Any) -> Any:
        return latents.mean(2, keepdim=True).expand_as(latents)


# --------------------------------------------------------------------------------------------------- files


def test_a_file_of_ten_lines_is_a_method_with_its_parameters_as_options(file, monkeypatch) -> None:
    assert len(IDEA.splitlines()) <= 12
    monkeypatch.chdir(file().parent)
    composed = compose(["plugin=./idea.py", "method=[talc,idea]", "idea.strength=0.5", "prompt=x"])
    idea = built_methods(composed)["idea"]
    assert (idea.strength, idea.mode, idea.sizes) == (0.5, "a", [1, 2])
    assert moments_of(composed).owners("after_step") == ["idea"]


@pytest.mark.parametrize(
    ("written", "pattern"),
    [
        ("idea.strength=abc", "idea.strength takes a number"),
        ("idea.strengh=1", "'idea.strength'"),
        ("idea.sizes=3", "idea.sizes takes a list"),
    ],
)
def test_its_options_are_checked_like_those_of_others(written: str, pattern: str, file) -> None:
    with pytest.raises(BadRequest, match=pattern):
        compose([f"plugin={file()}", "method=idea", "prompt=x", written])


def test_a_card_gives_the_name_and_is_checked(file) -> None:
    card = "from vidgen_core import Plugin\nplugin = Plugin('other', 'a test', __name__, families=('unet2d',){})\n"
    path = file(card.format("") + IDEA)
    assert compose([f"plugin={path}", "method=other"]).config["choices"]["model"] == "moving_shapes_image"
    with pytest.raises(BadRequest, match="runs on the model family unet2d, but model=tiny"):
        compose([f"plugin={path}", "method=other", "model=tiny"])
    with pytest.raises(BadRequest, match="reads 'imgae'. Did you mean 'image'"):
        compose([f"plugin={file(card.format(', reads=(*[`imgae`],)').replace('`', chr(39)) + IDEA)}", "method=other"])


def test_several_files_and_a_function_that_builds(file) -> None:
    build = "def build(strength=0.25):\n    return Idea(strength)\n"
    first, second = file(), file(IDEA + build, "b, c.py")
    with pytest.raises(BadRequest, match="the name 'b, c' is not made of letters"):
        compose([f"plugin={second}", "method=idea"])
    second = second.rename(second.with_name("built.py"))
    composed = compose([f"plugin=[{first},{second}]", "method=[idea,built]", "prompt=x"])
    assert [method.strength for method in built_methods(composed).values()] == [1.0, 0.25]
    assert compose([], {"plugin": [first, str(second)], "method": ["idea", "built"]}).config["plugin"].keys() == {
        str(first),
        str(second),
    }


MISTAKES = {
    "bad syntax": ("class Idea\n", r"is no Python: line 1: expected ':'"),
    "no text": ("\0", "fails: |is no Python"),
    "a helper beside it": ("\nimport a_file_beside\n", "line 2: ModuleNotFoundError.*a_file_beside.*in a package"),
    "it skips": ("class Skipped(BaseException): ...\nraise Skipped('no GPU')\n", "line 2: Skipped: no GPU"),
    "it leaves": ("import sys\nsys.exit(3)\n", "line 2: SystemExit: 3"),
    "no method": ("x = 1\n", "holds no method: a class whose hooks are marked"),
    "an unmarked hook": (IDEA.replace("@hookimpl", ""), "holds no method"),
    "several methods": (IDEA + IDEA.replace("Idea", "Other"), "several methods: Idea, Other"),
    "no default": (IDEA.replace('mode="a"', "mode").replace(": float = 1", ""), "'strength' of Idea has no default"),
    "no plain default": (IDEA.replace("(1, 2)", "{1}"), ": sizes=.*: a set is no value"),
    "no card": (IDEA + "plugin = 3\n", "its `plugin` is no card"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_file_that_does_not_serve_is_told_in_one_paragraph(mistake: str, file) -> None:
    source, pattern = MISTAKES[mistake]
    path = file(source)
    with pytest.raises(BadRequest, match=pattern) as caught:
        compose([f"plugin={path}", "method=idea", "prompt=x"])
    assert str(caught.value).startswith(f"plugin={path}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_file(tmp_path, capsys) -> None:
    for path, words in {"none.py": "there is no such file", "": "is a folder", "x.txt": "end in .py"}.items():
        assert cli.main([f"plugin={tmp_path / path}", "method=idea"]) == 2
        assert words in capsys.readouterr().err


def test_a_hook_with_a_wrong_argument_is_named(file) -> None:
    wrong = compose([f"plugin={file(IDEA.replace('step, latents', 'stp, latents'))}", "method=idea", "prompt=x"])
    with pytest.raises(BadRequest, match="'idea' asks for an argument 'stp' in its hook 'after_step'.*'step'"):
        moments_of(wrong)


def test_a_method_that_cannot_be_made_is_named(file) -> None:
    broken = compose([f"plugin={file(IDEA.replace('self.strength,', '1 / 0; self.strength,'))}", "method=idea"])
    with pytest.raises(BadRequest, match="The method 'idea' cannot be made: ZeroDivisionError"):
        built_methods(broken)


def test_a_file_whose_method_is_not_chosen_is_refused(file) -> None:
    with pytest.raises(BadRequest, match=r"brings the method 'idea', which is not chosen.*method=\[talc,idea\]"):
        compose([f"plugin={file()}", "method=talc", "prompt=x"])


def test_show_tells_its_options(file, capsys) -> None:
    path = file(IDEA.replace("class Idea:\n", 'class Idea:\n    """Frames become alike."""\n'))
    assert cli.main(["show", "idea", f"plugin={path}"]) == 0
    out = capsys.readouterr().out
    assert "idea: Frames become alike." in out and "after_step (chain)" in out and "idea.strength=1.0" in out


# ------------------------------------------------------------------------------------------- names taken twice


def test_two_plugins_of_one_name_are_refused_by_name(file, install_plugin, capsys) -> None:
    with pytest.raises(BadRequest, match=r"Two plugins have the name 'talc': .*talc.py and vidgen. Give one"):
        compose([f"plugin={file(name='talc.py')}", "method=talc", "prompt=x"])
    install_plugin("idea", "from vidgen_core import Plugin\nplugin = Plugin('idea', 'a test', __name__)\n")
    with pytest.raises(BadRequest, match="Two plugins have the name 'idea'"):
        compose([f"plugin={file()}", "method=idea", "prompt=x"])
    with pytest.raises(BadRequest, match="'prompt' is a key of vidgen's own"):
        compose([f"plugin={file(name='prompt.py')}", "method=idea", "prompt=x"])


def test_two_installed_plugins_of_one_name_are_broken_and_say_so(install_plugin, capsys) -> None:
    install_plugin("talc", "from vidgen_core import Plugin\nplugin = Plugin('talc', 'a test', __name__)\n")
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert "two plugins have this name, " in out and "uninstall third-party-talc, or have it choose another" in out
    assert "'vidgen_talc' of vidgen" in out and "'third_party_talc' of third-party-talc" in out
    assert cli.main(["explain", "method=talc"]) == 2
    assert "the other plugins work" in capsys.readouterr().err
    assert cli.main(["explain", "method=streaming", "model=tiny"]) == 0


# ----------------------------------------------------------------------------------------- records and replays


def test_a_replay_runs_the_very_same_file_and_no_other(file, tmp_path, capsys) -> None:
    path = file()
    api.generate(**SMALL, plugin=path, method="idea", output={"dir": tmp_path / "out", "latents": True})
    recorded = str(tmp_path / "out" / "run.yaml")
    path.write_text("raise SystemExit(7)\n")
    assert cli.main(["replay", recorded]) == 2
    assert f"plugin={path}: the file is not the one that was recorded" in capsys.readouterr().err
    path.unlink()
    assert cli.main(["replay", recorded]) == 2
    assert "there is no such file" in capsys.readouterr().err
    moved = file(name="idea_moved.py").rename(tmp_path / "out" / "idea.py")
    again = tmp_path / "again"
    assert cli.main(["replay", recorded, f"plugin={moved}", f"output.dir={again}", "output.latents=true"]) == 0
    latents = [(folder / "latents.safetensors").read_bytes() for folder in (tmp_path / "out", again)]
    assert latents[0] == latents[1]


def test_a_recorded_configuration_repeats_itself_and_takes_changes(file) -> None:
    path = file()
    written = [f"plugin={path}", "method=idea", "idea.strength=0.5", "prompt=x"]
    recorded = compose(written).config
    assert recompose(recorded).config == recorded
    assert recompose(recorded, ["idea.strength=0.25"]).methods["idea"]["strength"] == 0.25
    file(IDEA + "# changed\n")
    assert differences(recorded, compose(written).config) == [f"plugin.{path}"]  # so that no run goes on with another


# ------------------------------------------------------------------------------------------------- objects


def test_objects_run_as_methods(tmp_path) -> None:
    video = api.generate(**SMALL, method=["talc", Still()], output={"dir": tmp_path / "out"})
    assert np.array_equal(video.frames[0], video.frames[-1])
    assert video.folder is not None
    with pytest.raises(BadRequest, match=r"'still' \(.*Still\) is not installed.*run that program again"):
        recompose(read_provenance(video.folder / "run.yaml")["config"])


def test_the_card_of_an_object_counts() -> None:
    class Carded(Still):
        plugin = Plugin("carded", "a test", __name__, families=("unet2d",), excludes={"talc": "A test says so."})

    assert compose([], {"method": Carded()}).config["method"] == ["carded"]
    with pytest.raises(BadRequest, match="cannot be combined: A test says so"):
        compose([], {"method": ["talc", Carded()]})


class Wrong:
    @hookimpl
    def afterstep(self) -> None: ...


@pytest.mark.parametrize(
    ("method", "pattern"),
    [
        (3, "method=3: an object of type int has no hooks"),
        ([object()], "type object has no hooks"),
        (Still, r"is a class. Hand over an object of it: Still\(\)"),
        ([Still(), Still()], "Two plugins have the name 'still'"),
        (Wrong(), "'wrong' implements a hook 'afterstep' that does not exist. Did you mean 'after_step'"),
    ],
)
def test_what_is_no_method_is_refused(method: Any, pattern: str) -> None:
    with pytest.raises(BadRequest, match=pattern):
        moments_of(compose([], {"method": method, "prompt": "x"}))
