"""Somebody who does what a page says, block by block, in an empty folder of their own."""

from __future__ import annotations

import io
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module, invalidate_caches
from inspect import isclass
from pathlib import Path
from typing import Any

import pytest
import stand_ins
from page import ROOT, Block

from vidgen_core import cli
from vidgen_core.config import compose
from vidgen_core.errors import BadRequest
from vidgen_core.hookspecs import kinds

AS_WRITTEN = ("list", "show", "explain", "new", "convert", "replay", "matrix")
"""Verbs that are quick on what a page gives them, and so are run as they stand."""

OF_TRAINING = ("trainer", "data", "objective")
"""First parts of keys that only a training knows."""

SMALL = {"trainer.workers": 0, "trainer.accumulation": 1, "trainer.sample_every": 0}
SMALL |= {"trainer.validation_samples": 1, "trainer.validation_timesteps": 500}
"""What every training is run with: no processes beside it, and as little in a step as there can be."""


class Reader:
    """Does what blocks say, or raises AssertionError.

    Args:
        folder: An empty folder; the reader stays in it.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.patch = folder, patch
        self.names: dict[str, Any] = {"__name__": "page"}  # what the page's Python has defined
        self.output = ""  # of the last block that printed something
        self.unused: set[str] = set()  # files that the page has its reader write, and nothing has used yet
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))

    def do(self, block: Block) -> None:
        """One block: write it, run it, or compare it with what was printed."""
        for name in block.marks.get("given", "").split():
            stand_ins.put(self.folder / name)
        self.unused = {n for n in self.unused if not any(p in block.text for p in Path(n).with_suffix("").parts)}
        if block.language == "text":
            self.compare(block.text)
            return
        if block.file:
            self.unused.add(block.file)
            (self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / block.file).write_text(block.text, encoding="utf-8")
            return
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            if block.language == "python":
                self.python(block)
            elif block.language in ("", "bash"):
                for line, command in block.commands:
                    self.command(f"line {line}: {command}", shlex.split(command, comments=True), block.marks, printed)
            else:
                raise AssertionError(f"line {block.line}: nobody tests a block of '{block.language}'")
        self.output = printed.getvalue()

    def forget(self) -> None:
        """Forget the modules that the page wrote: every command is a process of its own, and every page."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", "")).startswith(f"{self.folder}/"):
                del sys.modules[name]
        invalidate_caches()

    def compare(self, text: str) -> None:
        """That the last block printed this; a line ``...`` stands for any lines, and where lines break is free."""
        printed, at = " ".join(self.output.split()), 0
        for part in re.split(r"^\.\.\.$", text, flags=re.MULTILINE):
            wanted = " ".join(part.split())
            assert wanted in printed[at:], f"this was not printed:\n{part}\nbut:\n{self.output}"
            at = printed.index(wanted, at) + len(wanted)

    def python(self, block: Block) -> None:
        """Run Python in one namespace for the whole page, as in a notebook."""
        source = "\n" * (block.line - 1) + block.text  # so that a traceback names the page's line
        code = compile(source, "page", "exec")
        if "refused" in block.marks:
            with pytest.raises(BadRequest) as refusal:
                exec(code, self.names)
            print(refusal.value)
            return
        before = set(self.names)
        exec(code, self.names)
        if "method" in block.marks:
            made = [self.names[name] for name in self.names.keys() - before]
            methods = [kind for kind in made if isclass(kind) and any(hasattr(kind, hook) for hook in kinds())]
            assert methods, "the block defines no method"
            for method in methods:
                self.try_method(method(), block.marks["method"].split())

    def try_method(self, method: object, keys: list[str]) -> None:
        """A video, or a training, of one method on the tiny model, in which each of its hooks is called."""
        from vidgen_core.commands import generate, train

        trains = keys[:1] == ["train"]
        values = {"method": [method], "model": "tiny", "trace": True}
        composed = compose(keys[trains:], values, entry="train" if trains else "config")
        traced = io.StringIO()
        with redirect_stderr(traced):
            (train if trains else generate).run(composed)
        called = set(re.findall(rf"^trace (\w+) +{composed.config['method'][0]} ", traced.getvalue(), re.MULTILINE))
        assert called == {hook for hook in kinds() if hasattr(method, hook)}

    # -------------------------------------------------------------------------------------------- commands

    def command(self, where: str, words: Sequence[str], marks: dict[str, str], printed: io.StringIO) -> None:
        """Run a command of a page, or check as much of it as can be checked here."""
        while words and re.fullmatch(r"srun|[A-Z_]+=.*", words[0]):  # the same on other machines; the environment
            words = words[1:]
        self.forget()
        program, arguments = words[0], list(words[1:])
        check = getattr(self, f"do_{program}", None)
        assert check is not None, f"{where}: nobody knows how '{program}' is tested"
        before = len(printed.getvalue())
        code = check(arguments, marks)
        wanted = 2 if "refused" in marks else 0
        assert code == wanted, f"{where}: exit code {code}, not {wanted}:\n{printed.getvalue()[before:]}"

    def do_vidgen(self, arguments: list[str], marks: dict[str, str]) -> int:
        """Run the command where that is asked for or quick; compose it in any case."""
        verb = arguments[0] if "=" not in arguments[0] else "generate"
        if verb == "doctor":
            return 0 if cli.main(arguments) in (0, 1) else 1  # 1 where something is wrong with this machine
        if verb in AS_WRITTEN or verb.startswith("-") or "--help" in arguments:
            return cli.main(arguments)
        code = self.composed(verb, [argument for argument in arguments if argument != verb])
        if code or "run" not in marks:
            return code
        return cli.main(changed(verb, arguments, shlex.split(marks["run"])))

    def composed(self, verb: str, arguments: list[str]) -> int:
        """The exit code of a command that is checked as far as it can be without a model."""
        if verb == "evaluate":
            return evaluation_composed(arguments)
        if verb == "train" and any(argument.startswith("experiment=") for argument in arguments):
            return stages_composed(arguments)
        assert verb in ("generate", "train"), f"nobody knows how `vidgen {verb}` is composed"
        return cli.main(["explain", *(["train"] if verb == "train" else []), *arguments])

    def do_accelerate(self, arguments: list[str], marks: dict[str, str]) -> int:
        """Of several processes: the launcher's arguments are read by itself, the command is composed."""
        from accelerate.commands.launch import launch_command_parser

        assert arguments[0] == "launch"
        return self.launched(launch_command_parser().parse_args(arguments[1:]))

    def do_torchrun(self, arguments: list[str], marks: dict[str, str]) -> int:
        """As ``accelerate launch``."""
        from torch.distributed.run import get_args_parser

        return self.launched(get_args_parser().parse_args(arguments))

    def launched(self, read: Any) -> int:
        """What a launcher is to start."""
        assert read.module and read.training_script == "vidgen_core"
        return self.do_vidgen(list(read.training_script_args), {})

    def do_python(self, arguments: list[str], marks: dict[str, str]) -> int:
        """A module of vidgen with a command line of its own."""
        assert arguments[0] == "-m"
        if arguments[1] == "vidgen_core":
            return self.do_vidgen(arguments[2:], marks)
        code: int = import_module(arguments[1]).main(arguments[2:])
        return code

    def do_pip(self, arguments: list[str], marks: dict[str, str]) -> int:
        """Names and extras are right; a package that the page has written is installed as far as Python sees it."""
        from packaging.requirements import Requirement

        assert arguments[0] == "install"
        for word in (argument for argument in arguments[1:] if not argument.startswith("-")):
            path, _, extras = word.removesuffix("]").partition("[")
            roots = [root / path for root in (self.folder, ROOT) if (root / path / "setup.cfg").is_file()]
            if roots:
                setup = _setup(roots[0])
                assert not extras or extras in setup["options.extras_require"], f"{path} has no extra '{extras}'"
                if roots[0] != ROOT / path:
                    self.install(roots[0], setup)
            else:
                assert (ROOT / word).is_file() or Requirement(word)
        return 0

    def install(self, folder: Path, setup: Any) -> None:
        """As ``pip install -e``: the package can be imported, and its entry points are found."""
        info = folder / "installed.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {setup['metadata']['name']}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[vidgen]\n{setup['options.entry_points']['vidgen'].strip()}\n")
        self.patch.syspath_prepend(str(folder))

    def do_pytest(self, arguments: list[str], marks: dict[str, str]) -> int:
        """The tests of a file or a folder, none of which takes a fixture."""
        (path,) = map(Path, arguments)
        files = [path] if path.is_file() else sorted(path.rglob("test_*.py"))
        tests = [f for file in files for name, f in runpy.run_path(str(file)).items() if name.startswith("test_")]
        assert tests, f"'{path}' holds no tests"
        for test in tests:
            test()
        return 0

    def do_sbatch(self, arguments: list[str], marks: dict[str, str]) -> int:
        """A script that the page wrote: the shell can read it, and what it starts is checked like any command."""
        (script,) = map(Path, arguments)
        subprocess.run(["bash", "-n", script], check=True)
        lines = [line for _, line in Block(1, "bash", script.read_text(), {}).commands]
        started = [shlex.split(line) for line in lines if line.startswith("srun")]
        assert started, f"'{script}' starts nothing"
        for words in started:
            words = [word for word in words if not re.fullmatch(r"\$[A-Z]+", word)]
            self.command(f"{script}: {' '.join(words)}", words, {}, io.StringIO())
        return 0

    def do_make(self, arguments: list[str], marks: dict[str, str]) -> int:
        """There is such a target."""
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(arguments) <= set(targets)
        return 0

    def do_hf(self, arguments: list[str], marks: dict[str, str]) -> int:
        """What is downloaded is what an option of ``model=`` loads."""
        options = "".join(file.read_text() for file in ROOT.glob("**/conf/model/*.yaml"))
        assert arguments[0] == "download" and re.search(rf"\b{arguments[1]}\b", options)
        return 0

    def do_export(self, arguments: list[str], marks: dict[str, str]) -> int:
        """A variable of the environment."""
        assert all(re.fullmatch(r"[A-Z_]+=.*", argument) for argument in arguments)
        return 0


def changed(verb: str, arguments: Sequence[str], keys: Sequence[str]) -> list[str]:
    """A command with other values, of those keys that its verb knows."""
    put = {**SMALL, **{key: value for key, _, value in (key.partition("=") for key in keys)}}
    if verb != "train":
        put = {key: value for key, value in put.items() if key.partition(".")[0] not in OF_TRAINING}
    written = [argument for argument in arguments if argument.partition("=")[0] not in put]
    return [*written, *(f"{key}={value}" for key, value in put.items())]


def evaluation_composed(arguments: Sequence[str]) -> int:
    """Compose an evaluation, and the command of each row; the exit code."""
    from vidgen_core.evaluation.comparison import read_stories
    from vidgen_core.evaluation.config import compose_evaluation
    from vidgen_core.evaluation.trainings import rows_of

    try:
        evaluation = compose_evaluation(arguments)
        if evaluation.experiment:
            rows_of(evaluation)
        if "stories" in evaluation.config:
            read_stories(evaluation)
    except BadRequest as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def stages_composed(arguments: Sequence[str]) -> int:
    """Compose every stage of a training's experiment; the exit code."""
    from vidgen_core.experiments import stages_of

    for stage in stages_of(arguments, "train"):
        compose(stage.overrides, stage.values, entry="train")
    return 0


def _setup(folder: Path) -> Any:
    import configparser

    setup = configparser.ConfigParser()
    setup.read(folder / "setup.cfg", encoding="utf-8")
    return setup
