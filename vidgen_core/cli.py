"""The command ``vidgen``: finds the verb, runs it, and turns every error into one paragraph and an exit code.

0 done, 1 the run failed, 2 the request cannot be met, 130 interrupted. A verb is a module of ``commands`` with
``main(arguments) -> int``, imported when it is asked for. Plugins bring more, each a module of their own ``commands``.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from vidgen_core import __version__
from vidgen_core.commands import VERBS
from vidgen_core.errors import BadRequest, VidgenError, nearest
from vidgen_core.plugin import commands_of, discover

HELP = """vidgen {version}: video-diffusion research methods that compose

  vidgen prompt="a red circle moves right on a white background"
  vidgen method=<name> prompt='["first scene","second scene"]' seed=7
  vidgen method=[<name>,<name>] model=modelscope prompt="..." num_frames=32

Verbs:
{verbs}

Plugins may bring more verbs; `vidgen list` names them. After the verb come key=value pairs. `vidgen explain` prints all
keys with their values, `vidgen show <method>` the options of a method. A prompt is taken literally; several scenes are
a JSON list. Exit codes: 0 done, 1 failed, 2 bad request, 130 interrupted. debug=true shows the traceback of an error,
trace=true every hook call.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except VidgenError as error:
        return _report(str(error), error.exit_code, arguments)
    except KeyboardInterrupt:
        return _report("Interrupted. What was written before stays.", 130, arguments)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; there is nobody to tell
        return 1
    except OSError as error:
        about = f" '{error.filename}'" if error.filename else ""
        return _report(
            f"The system refused{about}: {error.strerror or error}. What was written before stays.", 1, arguments
        )
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        return _report(f"Unexpected error, {what}. Add debug=true to see where; please report it.", 1, arguments)


def _dispatch(arguments: list[str]) -> int:
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help", "help"):
        print(help_text(), end="")
        return 0
    if first == "--version":
        print(f"vidgen {__version__}")
        return 0
    if first in VERBS:
        return _run(first, arguments[1:], arguments)
    if "=" in first:
        return _run("generate", arguments, arguments)
    if " " in first:
        raise BadRequest(f"'{first}' is no command. A prompt is written prompt='{first}'.")
    brought = commands_of(discover())
    if first in brought:
        package, summary = brought[first]
        return _run(first, arguments[1:], arguments, package, summary)
    raise BadRequest(f"There is no command '{first}'.{nearest(first, [*VERBS, *brought, '--help', '--version'])}")


def _run(
    verb: str, arguments: list[str], command_line: list[str], package: str = "vidgen_core", summary: str = ""
) -> int:
    try:
        module = import_module(f"{package}.commands.{verb}")
    except Exception as error:
        if package == "vidgen_core":
            raise
        raise VidgenError(
            f"The command '{verb}' of the package '{package}' cannot be loaded: {type(error).__name__}: {error}. Its "
            f"module is {package}.commands.{verb}, with a function main(arguments)."
        ) from error
    if any(flag in arguments for flag in ("-h", "--help")):
        print(f"vidgen {verb}: {summary or VERBS[verb]}\n{module.__doc__}")
        return 0
    from vidgen_core import provenance

    token = provenance.command_line.set(command_line)
    try:
        code: int = module.main(arguments)
    except Exception as error:
        if package == "vidgen_core" or isinstance(error, VidgenError):
            raise
        told = f"{type(error).__name__}: {error}"
        raise VidgenError(f"The command '{verb}' of '{package}' failed: {told}. debug=true shows where.") from error
    finally:
        provenance.command_line.reset(token)
    return code


def help_text() -> str:
    """The page of ``vidgen --help``."""
    verbs = "\n".join(f"  {verb:<9} {summary}" for verb, summary in VERBS.items())
    return HELP.format(version=__version__, verbs=verbs)


def _report(message: str, code: int, arguments: Sequence[str]) -> int:
    sys.stdout.flush()
    if "debug=true" in (argument.lower() for argument in arguments):
        traceback.print_exc()
    print(f"vidgen: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
