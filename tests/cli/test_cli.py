"""The command line: verbs, exit codes, one-paragraph errors, and a start that loads nothing heavy."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from vidgen_core import __version__, cli
from vidgen_core.commands import generate, replay
from vidgen_core.config import compose
from vidgen_core.errors import VidgenError
from vidgen_core.provenance import record, write_yaml

HEAVY = "{'torch','diffusers','transformers','peft','accelerate','decord','numpy','hydra'}"
BROKEN = "import a_module_that_is_not_there\n"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_help_and_list_import_nothing_heavy(arguments: list[str]) -> None:
    program = (
        f"import sys; from vidgen_core.cli import main; code = main({arguments});"
        f"print(sorted({HEAVY} & set(sys.modules))); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "vidgen_core", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"vidgen {__version__}\n")


def test_help_names_every_verb(capsys) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert all(f"  {verb} " in out for verb in cli.VERBS)
    assert run(capsys)[1] == out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb: str, capsys) -> None:
    code, out, _ = run(capsys, verb, "--help")
    assert code == 0
    assert verb in out


def test_help_of_the_verb_that_was_left_out(capsys) -> None:
    assert run(capsys, "method=talc", "--help") == run(capsys, "generate", "--help")


def test_a_bare_prompt_is_told_its_key(capsys) -> None:
    code, _, err = run(capsys, "a dog runs")
    assert code == 2
    assert "prompt='a dog runs'" in err


@pytest.mark.parametrize(("word", "hint"), [("genrate", "'generate'"), ("lst", "'list'"), ("--hepl", "'--help'")])
def test_an_unknown_verb_names_the_nearest(word: str, hint: str, capsys) -> None:
    code, _, err = run(capsys, word, "prompt=x")
    assert code == 2
    assert hint in err


def test_list_names_methods_models_and_papers(capsys) -> None:
    code, out, err = run(capsys, "list")
    assert (code, err) == (0, "")
    for word in ("talc", "arXiv 2405.04682", "tiny", "modelscope", "moving_shapes"):
        assert word in out
    assert "Broken" not in out


def test_a_broken_plugin_is_listed_and_the_others_work(capsys, install_plugin) -> None:
    install_plugin("fragile", BROKEN)
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert re.search(
        r"Broken plugins\n  fragile +ModuleNotFoundError: No module named 'a_module_that_is_not_there'", out
    )
    assert "talc" in out
    assert "Traceback" in run(capsys, "list", "--why", "fragile")[1]
    assert run(capsys, "list", "--why", "fragil")[0] == 2
    assert run(capsys, "show", "fragile")[0] == 2


CARD = 'from vidgen_core import Plugin\nplugin = Plugin(name="x", summary="a test", package={package}{more})\n'
GOOD = CARD.format(package="__name__", more="")
FAULTS = {
    "output": (GOOD, {}, "the name 'output' is a key of vidgen's own"),
    "prompt": (BROKEN, {}, "the name 'prompt' is a key"),
    "core": (GOOD, {}, "the name 'core' is a key"),
    "progress": (GOOD, {}, "the name 'progress' is a key"),
    "a.b": (GOOD, {}, "the name 'a.b' is not made of"),
    "skips": ("class Skipped(BaseException): ...\nraise Skipped('no GPU')\n", {}, "Skipped: no GPU"),
    "leaves": ("import sys\nsys.exit(3)\n", {}, "SystemExit: 3"),
    "lost": (CARD.format(package="'no.such'", more=""), {}, "ModuleNotFoundError: No module named 'no'"),
    "lonely": (CARD.format(package="'no_such'", more=""), {}, "its package 'no_such' is not there"),
    "reads": (CARD.format(package="__name__", more=", reads=('imgae',)"), {}, "reads 'imgae'. Did you mean 'image'"),
    "latin": (GOOD, {"conf/method/latin.yaml": b"# caf\xe9"}, ".*latin.yaml' is not UTF-8"),
    "cut": (GOOD, {"conf/method/cut.yaml": "a: [1"}, "conf/method/cut.yaml is no YAML: while parsing"),
    "bare": (GOOD, {"conf/model/bare.yaml": "word"}, "conf/model/bare.yaml holds no keys"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_plugin_that_cannot_be_used_is_listed_with_its_reason_and_harms_nobody(name, capsys, install_plugin) -> None:
    card, files, reason = FAULTS[name]
    install_plugin(name, card, files)
    code, out, _ = run(capsys, "list")
    assert code == 0
    assert re.search(rf"Broken plugins\n  {name} +.*{reason}", out)
    assert run(capsys, "show", name)[0] == run(capsys, "explain", f"method={name}")[0] == 2
    composed = compose(["method=talc", "prompt=x", "output.crf=3", "owner.plan=core"])
    assert composed.config["output"]["crf"] == 3


def test_a_file_that_cannot_be_composed_is_named(capsys, install_plugin) -> None:
    files = {"conf/method/twice.yaml": "# @package methods.twice\n_target_: a.b\nx: 1\nx: 2\n"}
    install_plugin("twice", GOOD, files)
    code, _, err = run(capsys, "explain", "method=twice")
    assert code == 1
    assert "method=[twice] cannot be composed" in err and "x" in err
    assert run(capsys, "explain", "method=talc", "model=tiny")[0] == 0


def test_show_tells_paper_hooks_and_options(capsys) -> None:
    code, out, _ = run(capsys, "show", "talc")
    assert code == 0
    assert "condition (collect)" in out
    assert re.search(r"models +.*tiny, tiny_depth.*modelscope|models +modelscope.*tiny", out)
    assert re.search(r"fits +depth, streaming, .*`vidgen matrix talc` tries them", out)
    assert re.search(r"talc.mode=time_aligned +time_aligned \| merged \| separate", out)
    code, out, _ = run(capsys, "show", "depth", "ddim")
    assert re.search(r"conflicts streaming \(model\), tf_t2v \(model\), tune_a_video \(excluded\)", out)
    assert re.search(r"depth.request_defaults.num_frames=8 +int; frames\n", out)  # the type, where no words say it
    assert re.search(r"scheduler.eta=0.0 +number, 0 to 1, how much", out)
    code, out, _ = run(capsys, "show", "tiny")
    assert re.search(r"model.trained_frames=16 +int >= 0, frames", out)
    assert run(capsys, "show", "tlac")[0] == 2
    assert run(capsys, "show")[0] == 2


def test_show_tells_options_also_where_no_model_fits(capsys, install_plugin) -> None:
    files = {"conf/method/ahead.yaml": "# @package methods.ahead\n_target_: a.b\nstrength: 0.5 # number, how far\n"}
    install_plugin("ahead", CARD.format(package="__name__", more=", families=('unet4d',)"), files)
    code, out, _ = run(capsys, "show", "ahead")
    assert code == 0
    assert "models    none (the family unet4d)" in out
    assert "hooks     not to be seen: The method 'ahead' runs on the model family unet4d" in out
    assert "ahead.strength=0.5  number, how far" in out


def test_explain_tells_origins_scenes_and_owners_and_loads_no_weights(capsys, monkeypatch) -> None:
    import vidgen_core.models.tiny as tiny

    monkeypatch.setattr(tiny, "build", lambda **_: pytest.fail("the model was built"))
    code, out, _ = run(
        capsys, "explain", "method=talc", "model=tiny", 'prompt=["one","two"]', "talc.scene_frames=[3,5]"
    )
    assert code == 0
    assert re.search(r"fps=8 +from model", out)
    assert "frames 0-2  one" in out and "frames 3-7  two" in out
    assert re.search(r"condition +collect +talc", out)
    assert re.search(r"plan +sole +core", out)


@pytest.mark.parametrize(
    ("owner", "hint"),
    [("owner.pln=talc", "'plan'"), ("owner.condition=talc", "one owner"), ("owner.plan=talk", "'core'|There")],
)
def test_a_wrong_owner_is_refused_before_weights_load(owner: str, hint: str, capsys) -> None:
    code, _, err = run(capsys, "explain", "method=talc", "model=tiny", owner)
    assert code == 2
    assert re.search(hint, err)


def test_a_bad_request_is_one_paragraph_and_exit_code_2(capsys) -> None:
    code, out, err = run(capsys, "num_frame=3", "prompt=x")
    assert (code, out) == (2, "")
    assert err == "vidgen: There is no key 'num_frame'. Did you mean 'num_frames'?\n"


def test_the_traceback_comes_with_debug(capsys) -> None:
    _, _, err = run(capsys, "num_frame=3", "prompt=x", "debug=true")
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("vidgen: ")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (VidgenError("The run failed.\nIn two lines."), 1, "vidgen: The run failed. In two lines.\n"),
        (KeyboardInterrupt(), 130, "Interrupted"),
        (OSError(28, "No space left on device", "out/video.mp4"), 1, "'out/video.mp4': No space left on device"),
        (ZeroDivisionError("division"), 1, "ZeroDivisionError: division"),
    ],
)
def test_every_failure_is_one_line_with_its_exit_code(error, code, words, capsys, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(generate, "main", fail)
    got, _, err = run(capsys, "prompt=x")
    assert got == code
    assert words in err
    assert err.count("\n") == 1


def test_generate_prints_the_files_last_and_may_be_left_out(capsys, monkeypatch, tmp_path) -> None:
    import vidgen_core.run

    seen = []

    def fake(composed, observers):
        seen.append((composed.request.videos[0].prompts, sorted(observers)))
        return [tmp_path / "video.mp4", tmp_path / "run.yaml"]

    monkeypatch.setattr(vidgen_core.run, "generate", fake)
    for arguments in (["prompt=-5, = ${x}"], ["generate", "prompt=-5, = ${x}"]):
        code, out, _ = run(capsys, *arguments)
        assert code == 0
        assert out.splitlines() == [str(tmp_path / "video.mp4"), str(tmp_path / "run.yaml")]
    assert seen == [(("-5, = ${x}",), ["progress"])] * 2


def test_the_record_holds_the_command_line_and_none_from_python(capsys, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(generate, "main", lambda arguments: seen.append(record({}, {})["command"]) or 0)
    run(capsys, "prompt=a b", "seed=3")
    run(capsys, "generate", "seed=4")
    assert seen == [["prompt=a b", "seed=3"], ["generate", "seed=4"]]
    assert record({}, {})["command"] is None


def test_from_python_every_step_gives_an_ordinary_tensor(tmp_path) -> None:
    import vidgen_core

    seen = []
    small = {"model": "tiny", "height": 32, "width": 32, "num_frames": 2, "num_inference_steps": 2}
    video = vidgen_core.generate(on_step=lambda step, x: seen.append((step.x0(), x)), **small, output={"dir": tmp_path})
    assert video.frames.shape == (2, 32, 32, 3)
    assert len(seen) == 2 and not any(tensor.is_inference() for pair in seen for tensor in pair)
    seen[0][1].requires_grad_().sum().backward()


@pytest.mark.parametrize("place", ["{}/file", "{}/file/run", "/proc/vidgen"])
@pytest.mark.parametrize("key", ["output.dir", "output.root"])
def test_a_place_where_nothing_can_be_written_is_told_to_be_changed(place, key, capsys, tmp_path) -> None:
    (tmp_path / "file").touch()
    code, _, err = run(capsys, "model=tiny", f"{key}={place.format(tmp_path)}")
    assert code == 1
    assert "choose another with output.dir=" in err


def test_a_model_without_an_example_refuses_before_it_loads(capsys) -> None:
    code, _, err = run(capsys, "model=modelscope")
    assert code == 2
    assert "No prompt was given" in err


def test_replay_composes_the_record_in_a_new_folder(capsys, monkeypatch, tmp_path) -> None:
    recorded = compose(["method=talc", 'prompt=["a","b"]', "output.dir=old", "seed=3"]).config
    record = {"config": recorded, "versions": {"hydra-core": "0.1", "python": "2"}}
    replayed = []
    monkeypatch.setattr(generate, "run", lambda composed: replayed.append(composed) or 0)
    write_yaml(tmp_path / "run.yaml", record)
    code, _, err = run(capsys, "replay", str(tmp_path / "run.yaml"), "fps=5")
    assert code == 0
    assert re.search(r"hydra-core was 0.1 .* and is \d", err) and "python" not in err
    assert replayed[0].config["output"]["dir"] is None
    assert replayed[0].request.seed == 3 and replayed[0].request.fps == 5
    assert replayed[0].request.videos == compose(['prompt=["a","b"]']).request.videos


@pytest.mark.parametrize("arguments", [[], ["seed=3"], ["missing.mp4"]])
def test_replay_needs_a_file(arguments: list[str], capsys) -> None:
    code, _, err = run(capsys, "replay", *arguments)
    assert code == 2
    assert "replay" in err or "missing.mp4" in err


def test_replay_refuses_a_file_without_a_record(capsys, tmp_path) -> None:
    (tmp_path / "holiday.yaml").write_text("place: sea")
    code, _, err = run(capsys, "replay", str(tmp_path / "holiday.yaml"))
    assert code == 2
    assert "no record" in err


def test_unchanged_versions_are_silent() -> None:
    from importlib import metadata

    assert replay.changed_versions({"pluggy": metadata.version("pluggy")}) == []


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_names_windows_and_steps(terminal: bool) -> None:
    from vidgen_core.progress import Progress

    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    request = SimpleNamespace(num_frames=8, videos=(SimpleNamespace(name="", index=0),))
    fake = SimpleNamespace(request=request, placement="cpu fp32", config={"videos": [{}]}, stage="base")
    inside = SimpleNamespace(**{**vars(fake), "stage": "refine"})
    with Progress(stream) as progress:
        progress.attach(fake, None)  # type: ignore[arg-type]
        for index, keep in enumerate((range(0, 4), range(4, 8))):
            for step in range(2):
                window = SimpleNamespace(index=index, keep=keep)
                progress.on_step(fake, window, SimpleNamespace(index=step, total=2))  # type: ignore[arg-type]
        progress.attach(inside, None)  # type: ignore[arg-type]
        progress.on_step(inside, window, SimpleNamespace(index=1, total=2))  # type: ignore[arg-type]
    text = stream.getvalue()
    assert text.startswith("placement: cpu fp32\n")
    assert "frames 4-7 of 8" in text
    assert "refine frames 4-7 of 8" in text
    if terminal:
        (task,) = progress._bar.tasks
        assert (task.completed, task.total) == (12, 16)
    else:
        assert len(text.splitlines()) == 5
