"""What a plugin must not be is told in one paragraph that names it and the mend, and costs nobody else anything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vidgen_core import Plugin, card, cli, hookimpl, hookspecs
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest, Conflict
from vidgen_core.moments import Moments
from vidgen_core.plugin import Found, discover, with_needs
from vidgen_core.unpackaged import joined, of_object

CARD = 'from vidgen_core import Plugin\nplugin = Plugin("x", "a test", __name__{more})\n'
METHOD = """
from vidgen_core import hookimpl
class Method:
    @hookimpl
    def after_step(self, {argument}):
        return {argument} + 1
"""


def yaml(name: str, target: str) -> str:
    return f"# @package methods.{name}\n_target_: {target}\n"


def told(capsys, *arguments: str) -> tuple[int, str]:
    """The exit code, and the one line that a command says of its error."""
    code = cli.main(list(arguments))
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return code, err


def reason(name: str) -> str:
    """Why a plugin is broken; the others are not."""
    found = discover()
    assert [entry.name for entry in found.values() if entry.plugin is None] == [name]
    assert compose(["method=talc", "prompt=x"]).methods
    return found[name].error


# ---------------------------------------------------------------------------------------------- its code


def test_an_entry_point_to_a_missing_module(capsys, tmp_path: Path, monkeypatch) -> None:
    info = tmp_path / "gone-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gone\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vidgen]\ngone = a_module_that_went\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert reason("gone") == "ModuleNotFoundError: No module named 'a_module_that_went'; mend or reinstall it"
    code, err = told(capsys, "method=gone", "prompt=x")
    assert code == 2 and "'gone' (gone) is installed but broken" in err and "reinstall it" in err


def test_a_card_with_a_syntax_error(install_plugin) -> None:
    install_plugin("typo", "plugin = Plugin(\n")
    assert re.match(r"SyntaxError: '\(' was never closed \(__init__.py, line 1\)", reason("typo"))


def test_a_method_with_a_syntax_error(capsys, install_plugin) -> None:
    target = "third_party_typo.method.Method"
    install_plugin(
        "typo", CARD.format(more=""), {"method.py": "class :", "conf/method/typo.yaml": yaml("typo", target)}
    )
    code, err = told(capsys, "explain", "method=typo", "model=tiny")
    assert code == 1 and f"'{target}' cannot be loaded: SyntaxError: invalid syntax (method.py, line 1)" in err


@pytest.mark.parametrize(
    ("name", "file", "words"),
    [
        ("idle", yaml("idle", "third_party_idle.method.Method"), "'idle' has no hooks, so nothing would come of it"),
        ("aimless", "# @package methods.aimless\nstrength: 1.0\n", "conf/method/aimless.yaml: _target_ is missing"),
    ],
)
def test_a_method_of_which_nothing_would_come_is_refused(name, file, words, capsys, install_plugin) -> None:
    files = {"method.py": "class Method: ...\n", f"conf/method/{name}.yaml": file}
    install_plugin(name, CARD.format(more=""), files)
    code, err = told(capsys, "explain", f"method={name}", "model=tiny")
    assert code == 2 and words in err


def test_a_hook_with_a_wrong_argument(capsys, install_plugin) -> None:
    files = {"method.py": METHOD.format(argument="latent")}
    files["conf/method/wrong.yaml"] = yaml("wrong", "third_party_wrong.method.Method")
    install_plugin("wrong", CARD.format(more=""), files)
    code, err = told(capsys, "method=wrong", "model=tiny", "prompt=x")
    assert code == 2
    assert "The method 'wrong' asks for an argument 'latent' in its hook 'after_step'" in err
    assert "Did you mean 'latents'" in err


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("outside", "os.system"),
        ("imported", "third_party_imported.method.getcwd"),
        ("inside", "third_party_inside.method.os.system"),
    ],
)
def test_a_configuration_that_names_other_code_is_refused(name: str, target: str, capsys, install_plugin) -> None:
    files = {"method.py": "import os\nfrom os import getcwd\n", f"conf/method/{name}.yaml": yaml(name, target)}
    install_plugin(name, CARD.format(more=""), files)
    code, err = told(capsys, f"method={name}", "model=tiny", "prompt=x")
    if name == "inside":  # what is looked for is a module of the plugin's, and there is none
        assert code == 1 and f"'{target}' cannot be loaded: ModuleNotFoundError" in err
    else:
        assert code == 2 and f"conf/method/{name}.yaml: _target_: '{target}' is refused" in err


def test_models_and_schedulers_name_no_other_code_either(capsys, install_plugin, tmp_path: Path) -> None:
    model = (
        "_target_: os.mkdir\npath: evil\nfamily: unet3d\ntrained_frames: 0\nrequest_defaults: {}\nexample_prompt: x\n"
    )
    files = {"conf/model/evil_model.yaml": model, "conf/scheduler/evil_scheduler.yaml": "name: os.system\n"}
    install_plugin("evil", CARD.format(more=", is_method=False"), files)
    out = f"output.dir={tmp_path / 'out'}"
    assert cli.main(["model=evil_model", out]) == 2
    assert "_target_: 'os.mkdir' is refused" in capsys.readouterr().err
    assert cli.main(["model=tiny", "scheduler=evil_scheduler", out, "output.overwrite=true"]) == 2
    assert "scheduler.name: 'os.system' is refused" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------- its names


@pytest.mark.parametrize(
    ("files", "more", "words"),
    [
        ({"conf/model/tiny.yaml": ""}, "", "it brings model=tiny, which 'vidgen' brings already; give it another name"),
        (
            {"conf/method/talc.yaml": "# @package methods.talc\n"},
            "",
            "it brings method=talc, which 'talc' brings already",
        ),
        ({}, ", commands={'list': 'lists'}", "it brings command=list, which 'vidgen' brings already"),
        ({}, ", commands={'My-list': 'lists'}", "its command 'My-list' is not made of small letters"),
        ({}, ", commands=('shout',)", "its card's commands=('shout',) must be a dictionary"),
        ({}, ", excludes=('talc',)", "its card's excludes=('talc',) must be a dictionary"),
        ({}, ", hook_api='1'", "its card's hook_api='1' must be a whole number"),
        ({}, ", paper=2405.04682", "its card's paper=2405.04682 must be a text"),
        ({}, "", "it brings no conf/method/aaa.yaml; one that is no method says is_method=False"),
        ({"conf/method/aaa.yaml": "_target_: a.b\n"}, "", "begin with the line '# @package methods.aaa'"),
        (
            {},
            ", families=('unet3d')",
            "its card's families='unet3d' is one text; write a tuple, families=('unet3d',)",
        ),
        (
            {},
            ", is_method=False, needs=('absent',)",
            "it needs the plugin 'absent', which is not installed; install it",
        ),
    ],
)
def test_what_a_card_cannot_say(files, more: str, words: str, install_plugin) -> None:
    install_plugin("aaa", CARD.format(more=more), files)
    assert words in reason("aaa")


HOARSE = {"commands/__init__.py": "", "commands/shout.py": "def main(arguments): return 1 / 0\n"}


def test_a_command_that_is_not_there_or_fails(capsys, install_plugin) -> None:
    install_plugin("empty", CARD.format(more=", is_method=False, commands={'sing': 'sings'}"))
    code, err = told(capsys, "sing", "loud")
    assert code == 1 and "The command 'sing' of the package 'third_party_empty' cannot be loaded" in err
    install_plugin("hoarse", CARD.format(more=", is_method=False, commands={'shout': 'shouts'}"), HOARSE)
    code, err = told(capsys, "shout")
    assert code == 1 and "The command 'shout' of 'third_party_hoarse' failed: ZeroDivisionError" in err
    assert told(capsys, "sin")[1].endswith("Did you mean 'sing'?\n")
    assert "Commands\n  sing" in (cli.main(["list"]), capsys.readouterr().out)[1]


# ---------------------------------------------------------------------------------------- other plugins


def with_cards(**needs: tuple[str, ...]) -> dict[str, Found]:
    return {name: Found(name, name, "1", Plugin(name, "a test", name, needs=needed)) for name, needed in needs.items()}


def test_methods_that_train_by_different_objectives_are_refused_until_one_is_picked(install_plugin) -> None:
    yaml = "# @package methods.mine\n_target_: third_party_mine.M\ngroup_defaults:\n  objective: denoising\n"
    install_plugin("mine", CARD.format(more=""), {"conf/method/mine.yaml": yaml})
    asked = ["method=[mine,streaming]", "model=tiny"]
    with pytest.raises(Conflict, match="'mine' and 'streaming' train by different.*objective=denoising or objective="):
        compose(asked, entry="train")
    picked = compose([*asked, "objective=denoising"], entry="train").config["objective"]["_target_"]
    assert picked == compose(["model=tiny"], entry="train").config["objective"]["_target_"]
    assert compose([*asked, "prompt=x"])


def test_what_a_plugin_prints_when_it_is_found_is_no_answer_of_a_command(install_plugin, capsys) -> None:
    install_plugin("loud", f"print('hello')\n{CARD.format(more=', is_method=False')}")
    assert cli.main(["list"]) == 0
    out, err = capsys.readouterr()
    assert "hello" not in out and "loud" in out and "hello" in err


def test_plugins_that_need_each_other_are_broken_with_those_that_need_them() -> None:
    found = with_needs(with_cards(a=("b",), b=("c",), c=("a",), d=("a",), e=("f",), f=()))
    errors = {name: entry.error for name, entry in found.items()}
    assert errors["a"] == errors["b"] == errors["c"]
    assert "in a circle: 'a' needs 'b' needs 'c' needs 'a'; one of them must do without" in errors["a"]
    assert errors["d"].startswith("it needs the plugin 'a', which is broken: plugins need each other in a circle")
    assert errors["e"] == errors["f"] == ""
    assert "circle: 'a' needs 'a'" in with_needs(with_cards(a=("a",)))["a"].error


def test_why_a_plugin_is_broken_is_told_on_demand_though_it_raised_nothing(capsys, install_plugin) -> None:
    install_plugin("lonely", CARD.format(more=", is_method=False, needs=('absent',)"))
    assert cli.main(["list", "--why", "lonely"]) == 0
    assert "needs the plugin 'absent', which is not installed" in capsys.readouterr().out


def test_an_object_that_needs_what_is_not_there_is_refused() -> None:
    class Needs:
        plugin = Plugin("needs", "a test", __name__, needs=("absent",))

        @hookimpl
        def on_step(self): ...

    with pytest.raises(BadRequest, match="Needs cannot be used: it needs the plugin 'absent', which is not installed"):
        joined(discover(), [of_object(Needs())])


# --------------------------------------------------------------------------------------------- versions


@pytest.mark.parametrize(
    ("written", "words"),
    [(2, "written for hook API 2, this vidgen serves 1; update vidgen"), (0, "serves 1; update the plugin")],
)
def test_a_plugin_for_another_hook_api_is_refused_by_name(written: int, words: str, capsys, install_plugin) -> None:
    install_plugin("other", CARD.format(more=f", hook_api={written}"))
    assert words in reason("other")
    code, err = told(capsys, "method=other", "prompt=x")
    assert code == 2 and "'other'" in err and words in err


def test_a_plugin_for_an_older_hook_api_that_is_still_served_is_warned_by_name(monkeypatch, install_plugin) -> None:
    install_plugin(
        "older",
        CARD.format(more=", hook_api=1"),
        {"conf/method/older.yaml": yaml("older", "third_party_older.method.Method")},
    )
    monkeypatch.setattr(card, "HOOK_API_VERSION", 2)
    (note,) = compose(["method=[talc,older]", "prompt=x"]).notes
    assert "'older' was written for hook API 1; this vidgen serves 1 to 2" in note and "look for a newer one" in note
    monkeypatch.setattr(card, "OLDEST_HOOK_API", 2)
    assert "hook API 1, this vidgen serves 2; update the plugin" in reason("older")


class OldFashioned:
    @hookimpl
    def after_step(self, latents):
        return latents + 1


def test_a_deprecated_hook_runs_and_its_method_is_told_the_replacement(monkeypatch, capsys) -> None:
    monkeypatch.setattr(hookspecs.after_step, "vidgen_instead", "implement on_step, which sees the same latents")
    moments = Moments({"old": OldFashioned(), "other": object()})
    assert moments.after_step(run=None, window=None, step=None, latents=1) == 2
    (note,) = moments.notes
    assert note == (
        "The method 'old' implements the hook 'after_step', which a later vidgen will not have: implement on_step, "
        "which sees the same latents."
    )


@pytest.mark.parametrize("option", ["wrapper", "hookwrapper", "tryfirst", "trylast", "optionalhook"])
def test_a_hook_that_would_be_called_in_another_order_is_refused(option: str) -> None:
    class Wraps:
        @hookimpl(**{option: True})
        def after_step(self, latents):
            yield

    with pytest.raises(BadRequest, match=f"'wraps' marks its hook 'after_step' with {option}=True, which vidgen does"):
        Moments({"wraps": Wraps()})


def test_an_argument_that_would_never_be_filled_in_is_refused() -> None:
    class Waits:
        @hookimpl
        def after_step(self, latents, step=None, own=2): ...

    with pytest.raises(BadRequest, match="'waits' gives the argument 'step' of its hook 'after_step' a default"):
        Moments({"waits": Waits()})


def test_a_removed_hook_is_refused_with_the_replacement(monkeypatch) -> None:
    class Older:
        @hookimpl
        def before_step(self, latents): ...

    monkeypatch.setitem(hookspecs.REMOVED, "before_step", "implement after_step of the step before")
    words = (
        "'old' implements the hook 'before_step', which vidgen no longer has: implement after_step of the step before"
    )
    with pytest.raises(BadRequest, match=words):
        Moments({"old": Older()})


def test_deprecations_are_told_before_a_run(monkeypatch, capsys) -> None:
    monkeypatch.setattr(hookspecs.condition, "vidgen_instead", "a test says so")
    assert cli.main(["explain", "method=talc", "model=tiny", "prompt=x"]) == 0
    assert (
        "The method 'talc' implements the hook 'condition', which a later vidgen will not have"
        in capsys.readouterr().out
    )
