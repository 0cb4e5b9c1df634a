"""The hooks of one run: who owns each moment, in which order, checked before anything heavy happens.

Each run has its own ``Moments`` around fresh pluggy managers, one a method; nothing here outlives it.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pluggy

from vidgen_core import hookspecs
from vidgen_core.errors import BadRequest, Conflict, VidgenError, nearest

if TYPE_CHECKING:
    from vidgen_core.request import Request

CORE = "core"

OBJECTIVE = "objective"
"""Its name among the methods of a training."""


class Moments:
    """The hooks of one run, called as ``moments.plan(run=run)``; arguments by name only.

    Args:
        methods: The chosen methods in the order of ``method=[...]``: name -> object with hooks.
        owners: The user's choice between two owners of a sole hook: hook -> method name, or ``core``.
        defaults: The core's own answer for each sole hook.
        observers: The house's observers (writer, progress), called after the methods': name -> object.
        trace: Print each hook call with its owner and duration to stderr.

    Raises:
        BadRequest: for an unknown hook or argument, two owners of a sole hook, two claims of one thing, or a choice
            that names nobody.
    """

    def __init__(
        self,
        methods: Mapping[str, object],
        owners: Mapping[str, str] | None = None,
        defaults: Mapping[str, Callable[..., Any]] | None = None,
        observers: Mapping[str, object] | None = None,
        trace: bool = False,
    ) -> None:
        self.methods = dict(methods)
        self.observers = dict(observers or {})
        self._owners = dict(owners or {})
        self._defaults = dict(defaults or {})
        self.trace = trace
        self._kinds = hookspecs.kinds()
        self.notes: list[str] = []  # what the user should be told before the run
        self.failed_in = "the run"  # the hook that raised and its owner, where it was one
        # A prefix, so that no method can have the name of one of the house's observers.
        everyone = {**self.methods, **{f"{CORE}.{name}": observer for name, observer in self.observers.items()}}
        # A manager each, so that every hook is called by owner: pluggy passes only the arguments that it declares.
        hooks = {name: self._registered(name, plugin).hook for name, plugin in everyone.items()}
        implementers = {
            hook: [name for name, own in hooks.items() if getattr(own, hook).get_hookimpls()] for hook in self._kinds
        }
        self._claims = {
            hook: {n: hookspecs.claims_of(everyone[n], hook) for n in names} for hook, names in implementers.items()
        }
        self._check_owners(implementers)
        for hook in ("attach", "recall", "condition"):  # what several have learnt may well be used together
            self.check_claims(hook)
        # What replaces attention goes inside what wraps it, wherever the list names it.
        implementers["attach"].sort(key=lambda name: not self._claims["attach"][name])
        self._callers: dict[str, list[tuple[str, pluggy.HookCaller]]] = {
            hook: [(name, getattr(hooks[name], hook)) for name in names] for hook, names in implementers.items()
        }

    # -------------------------------------------------------------------------------------- registration

    def _registered(self, name: str, plugin: object) -> pluggy.PluginManager:
        manager = pluggy.PluginManager("vidgen")
        manager.add_hookspecs(hookspecs)
        try:
            manager.register(plugin, name)
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            for hook in hookspecs.marked(plugin):
                if hook in hookspecs.REMOVED:
                    raise BadRequest(
                        f"The method '{name}' implements the hook '{hook}', which vidgen no longer has: "
                        f"{hookspecs.REMOVED[hook]}. Update the plugin, or use an earlier vidgen."
                    ) from error
                if hook not in self._kinds:
                    raise BadRequest(
                        f"The method '{name}' implements a hook '{hook}' that does not exist."
                        f"{nearest(hook, self._kinds)}"
                    ) from error
                known = inspect.signature(getattr(hookspecs, hook)).parameters
                for argument in inspect.signature(getattr(plugin, hook)).parameters:
                    if argument not in known:
                        raise BadRequest(
                            f"The method '{name}' asks for an argument '{argument}' in its hook '{hook}', which has "
                            f"only: {', '.join(known)}.{nearest(argument, known)}"
                        ) from error
            raise BadRequest(f"The method '{name}' cannot be registered: {error}") from error
        for hook in self._kinds if name in self.methods else ():
            function = getattr(plugin, hook, None)
            if inspect.isroutine(function) and not hasattr(function, "vidgen_impl"):
                raise BadRequest(
                    f"The method '{name}' has a function '{hook}' that is never called. Mark it with "
                    "@vidgen_core.hookimpl, also where it overrides one that is marked, or name it otherwise."
                )
        for hook in hookspecs.marked(plugin):
            _check_plain(name, hook, getattr(plugin, hook))
        going = hookspecs.deprecated()
        self.notes += [
            f"The method '{name}' implements the hook '{hook}', which a later vidgen will not have: {going[hook]}."
            for hook in (hookspecs.marked(plugin) if going else ())
            if hook in going
        ]
        return manager

    def _check_owners(self, implementers: dict[str, list[str]]) -> None:
        for hook, owner in self._owners.items():
            soles = [h for h, kind in self._kinds.items() if kind == hookspecs.SOLE]
            if hook not in soles:
                raise BadRequest(
                    f"owner.{hook}={owner}: only a hook with one owner can be given.{nearest(hook, soles)}"
                )
            if owner != CORE and owner not in implementers[hook]:
                raise BadRequest(
                    f"owner.{hook}={owner}, but '{owner}' does not implement '{hook}'."
                    f"{nearest(owner, [CORE, *implementers[hook]])}"
                )
            for name in self._keeping(hook):
                if name != owner:
                    told = f"owner.{hook}={owner} takes '{hook}' from '{name}', which cannot do without it."
                    raise Conflict(f"{told} Leave '{name}' out, or do not pick.", over=hook)
            implementers[hook] = [] if owner == CORE else [owner]
        for hook, kind in self._kinds.items():
            if kind == hookspecs.SOLE and len(implementers[hook]) > 1:
                names, keeping = implementers[hook], self._keeping(hook)
                picks = [f"owner.{hook}={name}" for name in keeping or names] if len(keeping) < 2 else []
                raise Conflict(
                    f"{' and '.join(repr(n) for n in names)} both want to own '{hook}', which has one owner. Leave one "
                    f"out{', or pick: ' if picks else ''}{' or '.join(picks)}.",
                    over=hook,
                )

    def _keeping(self, hook: str) -> list[str]:
        """The methods that cannot do without a sole hook of theirs, because they claim it."""
        return [name for name, claims in self._claims[hook].items() if hook in claims]

    def claims(self, hook: str) -> dict[str, tuple[str, ...]]:
        """Method -> what it claims in a hook."""
        return {name: claims for name, claims in self._claims[hook].items() if name in self.methods}

    def check_claims(self, hook: str) -> None:
        """Raise Conflict where two methods claim the same in a hook."""
        owner: dict[str, str] = {}
        for name, claims in self._claims[hook].items():
            # What a method supplies under its own name is its own without a claim.
            for claim in dict.fromkeys(claims if hook == "attach" else (name, *claims)):
                if claim in owner:
                    mend = "Leave one of them out."
                    if OBJECTIVE in (owner[claim], name):
                        mend = "Choose another objective=, or leave the method out."
                    raise Conflict(
                        f"The methods '{owner[claim]}' and '{name}' cannot be combined: both own '{claim}' in their "
                        f"hook '{hook}', which can have one owner. {mend}",
                        over=hook,
                    )
                owner[claim] = name

    # --------------------------------------------------------------------------------------------- calls

    def __getattr__(self, hook: str) -> Callable[..., Any]:
        kind = self.__dict__.get("_kinds", {}).get(hook)
        if kind is None:
            raise AttributeError(hook)
        call = {
            hookspecs.SOLE: self._sole,
            hookspecs.COLLECT: self._collect,
            hookspecs.CHAIN: self._chain,
            hookspecs.OBSERVE: self._observe,
        }[kind]

        def moment(**arguments: Any) -> Any:
            return call(hook, arguments)

        # Kept on the instance, so that a step does not build it again.
        self.__dict__[hook] = moment
        return moment

    def owners(self, hook: str) -> list[str]:
        """Who implements a hook in this run, in calling order; ``core`` where only the core's default runs."""
        names = [name for name, _ in self._callers[hook]]
        return names or ([CORE] if hook in self._defaults else [])

    def asks(self, hook: str, argument: str) -> bool:
        """Whether anyone's hook takes this argument; what nobody takes need not be made."""
        return any(argument in impl.argnames for _, caller in self._callers[hook] for impl in caller.get_hookimpls())

    def table(self) -> list[tuple[str, str, list[str]]]:
        """(hook, kind, owners in calling order) for every hook, in the order of a run."""
        return [(hook, kind, self.owners(hook)) for hook, kind in self._kinds.items()]

    def _call(self, hook: str, owner: str, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        if not self.trace:
            return self._guarded(hook, owner, function, arguments)
        start = time.perf_counter()
        try:
            return self._guarded(hook, owner, function, arguments)
        finally:
            where = arguments.get("window") or arguments.get("step")
            milliseconds = 1000 * (time.perf_counter() - start)
            print(f"trace {hook:<17} {owner:<14} {milliseconds:9.2f} ms  {_place(where)}", file=sys.stderr)

    def _guarded(self, hook: str, owner: str, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        try:
            return function(**arguments)
        except Exception as error:
            self.failed_in = f"{hook} of {owner}"
            if isinstance(error, VidgenError) or owner not in self.methods:
                raise
            raise VidgenError(
                f"The method '{owner}' failed in its hook '{hook}': {type(error).__name__}: {error}. Add debug=true "
                "to see where."
            ) from error

    def _sole(self, hook: str, arguments: dict[str, Any]) -> Any:
        if self._callers[hook]:
            owner, caller = self._callers[hook][0]
            results = self._call(hook, owner, caller, arguments)
            if not results:
                raise VidgenError(f"The method '{owner}' owns '{hook}' but returned None; it must return a result.")
            return results[0]
        if hook not in self._defaults:
            raise VidgenError(f"Nobody owns '{hook}' in this run and the core has no default for it.")
        return self._call(hook, CORE, self._defaults[hook], arguments)

    def collected(self, hook: str, **arguments: Any) -> dict[str, tuple[str, Any]]:
        """What a collect hook's methods supply, and who: key -> (owner, value)."""
        merged: dict[str, tuple[str, Any]] = {}
        for owner, caller in self._callers[hook]:
            for key, value in (self._call(hook, owner, caller, arguments) or [{}])[0].items():
                if hook != "losses":
                    self._check_claimed(hook, owner, key)
                if key in merged and hook == "losses":  # all terms are summed, those of one name too
                    value = merged[key][1] + value
                elif key in merged:
                    raise Conflict(f"'{merged[key][0]}' and '{owner}' both supply '{key}' in the hook '{hook}'.", hook)
                merged[key] = owner, value
        return merged

    def _check_claimed(self, hook: str, owner: str, key: str) -> None:
        name = key.partition(".")[0]
        if name not in (owner, *self._claims[hook][owner]):
            raise VidgenError(
                f"The method '{owner}' supplies '{key}' in its hook '{hook}' and claims no '{name}', so that another "
                f"could supply it too. Mark the hook with @hookimpl(claims='{name}'), or begin the name with the "
                f"method's: '{owner}.{key}'."
            )

    def _collect(self, hook: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, (_, value) in self.collected(hook, **arguments).items()}

    def _chain(self, hook: str, arguments: dict[str, Any]) -> Any:
        if hook == "attach":
            return self._attached(arguments)
        carried, arranged = _CARRIED[hook], list[str]()
        for owner, caller in self._callers[hook]:
            results = self._call(hook, owner, caller, arguments)
            if results and hook == "prepare_request":
                _check_arranged(owner, arguments[carried], results[0], arranged)
            if results:
                arguments = {**arguments, carried: results[0]}
        return arguments[carried]

    @contextmanager
    def _attached(self, arguments: dict[str, Any]) -> Any:
        # A chain of contexts: each method sees the backbone as the earlier ones left it, and they unwind in reverse.
        with ExitStack() as stack:
            for owner, caller in self._callers["attach"]:
                contexts: Sequence[AbstractContextManager[None]] = self._call("attach", owner, caller, arguments)
                for context in contexts:
                    self._guarded("attach", owner, partial(stack.enter_context, context), {})
            yield

    def _observe(self, hook: str, arguments: dict[str, Any]) -> None:
        for owner, caller in self._callers[hook]:
            self._call(hook, owner, caller, arguments)


_CARRIED = {
    "prepare_request": "request",
    "refine_condition": "condition",
    "after_step": "latents",
    "finish_frames": "blocks",
}
"""The argument of each chain hook that is handed from one method to the next."""


def _check_arranged(owner: str, before: Request, after: Request, arranged: list[str]) -> None:
    """Raise Conflict where a method lays scenes that an earlier one, the last of ``arranged``, has laid otherwise."""

    def scenes(request: Request) -> list[list[tuple[int, int]]]:
        return [[(scene.start, scene.stop) for scene in video.scenes] for video in request.videos]

    if scenes(before) != scenes(after):
        if arranged:
            raise Conflict(
                f"The methods '{arranged[-1]}' and '{owner}' cannot be combined: both lay scenes on the frames, in "
                "their hook 'prepare_request'. Leave one of them out.",
                over="prepare_request",
            )
        arranged.append(owner)


def _check_plain(name: str, hook: str, function: Any) -> None:
    """Raise BadRequest for what pluggy knows but a run would pass over in silence."""
    for option in ("hookwrapper", "wrapper", "tryfirst", "trylast", "optionalhook", "specname"):
        if value := function.vidgen_impl.get(option):
            raise BadRequest(
                f"The method '{name}' marks its hook '{hook}' with {option}={value}, which vidgen does not heed: "
                "methods are called in the order of method=[...], each given what the one before it returned. Write "
                "@hookimpl alone."
            )
    for claim in getattr(function, "vidgen_claims", ()):
        allowed = hookspecs.claimable(hook)
        if allowed is not None and claim not in allowed:
            only = f"only: {', '.join(allowed)}" if allowed else "nothing"
            raise BadRequest(f"The method '{name}' claims '{claim}' in its hook '{hook}', which can claim {only}.")
        if "." in claim:
            raise BadRequest(
                f"The method '{name}' claims '{claim}' in its hook '{hook}'. A claim is what names begin with, up to "
                f"the first dot: claims='{claim.partition('.')[0]}'."
            )
    known = inspect.signature(getattr(hookspecs, hook)).parameters if hasattr(hookspecs, hook) else {}
    for argument in inspect.signature(function).parameters.values():
        if argument.name in known and argument.default is not argument.empty:
            raise BadRequest(
                f"The method '{name}' gives the argument '{argument.name}' of its hook '{hook}' a default. Such an "
                "argument is never filled in; write it without."
            )


def _place(where: Any) -> str:
    span = getattr(where, "span", None)
    if span is not None:
        return f"frames {span.start}..{span.stop - 1}"
    index = getattr(where, "index", None)
    return f"step {index}" if index is not None else ""
