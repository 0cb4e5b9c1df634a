"""Kinds of hooks, their order, and what is refused before anything heavy happens."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from vidgen_core import hookimpl, hookspecs
from vidgen_core.errors import BadRequest, Conflict, VidgenError
from vidgen_core.moments import Moments


def method(**hooks):
    """An object whose hooks are the given functions."""
    return type("Method", (), {name: staticmethod(hookimpl(function)) for name, function in hooks.items()})()


class Adds:
    @hookimpl
    def after_step(self, latents):
        return latents + 1


class Doubles:
    @hookimpl
    def after_step(self, latents):
        return latents * 2


class Plans:
    @hookimpl
    def plan(self):
        return ["group"]


class Texts:
    @hookimpl(claims="text")
    def condition(self):
        return {"text": 1}


def after_step(moments: Moments, latents: int) -> int:
    return moments.after_step(run=None, window=None, step=None, latents=latents)


def test_a_chain_runs_in_the_order_of_the_list() -> None:
    assert after_step(Moments({"adds": Adds(), "doubles": Doubles()}), 1) == 4
    assert after_step(Moments({"doubles": Doubles(), "adds": Adds()}), 1) == 3


def test_none_leaves_a_chained_value_unchanged() -> None:
    class Silent:
        @hookimpl
        def after_step(self, latents):
            return None

    assert after_step(Moments({"silent": Silent(), "adds": Adds()}), 1) == 2


def test_a_sole_hook_falls_back_to_the_core() -> None:
    moments = Moments({}, defaults={"plan": lambda run: ["default"]})
    assert moments.plan(run=None) == ["default"]
    assert moments.owners("plan") == ["core"]


def test_two_owners_of_a_sole_hook_are_refused_with_both_names() -> None:
    with pytest.raises(BadRequest, match=r"'first' and 'second' both want to own 'plan'.*owner.plan=first"):
        Moments({"first": Plans(), "second": Plans()})


def test_the_user_picks_the_owner() -> None:
    class Other:
        @hookimpl
        def plan(self):
            return ["other"]

    both = {"first": Plans(), "second": Other()}
    assert Moments(both, {"plan": "second"}).plan(run=None) == ["other"]
    assert Moments(both, {"plan": "core"}, {"plan": lambda run: ["core"]}).plan(run=None) == ["core"]


@pytest.mark.parametrize(
    ("owners", "message"),
    [
        ({"plan": "nobody"}, "'nobody' does not implement 'plan'. There are: core, plans"),
        ({"condition": "texts"}, "only a hook with one owner"),
        ({"plann": "plans"}, "Did you mean 'plan'"),
    ],
)
def test_a_choice_that_names_nobody_is_refused(owners, message) -> None:
    with pytest.raises(BadRequest, match=message):
        Moments({"plans": Plans(), "texts": Texts()}, owners)


def test_collected_dictionaries_are_merged() -> None:
    class Depth:
        @hookimpl
        def condition(self):
            return {"depth": 2}

    merged = Moments({"texts": Texts(), "depth": Depth()}).condition(run=None, window=None)
    assert merged == {"text": 1, "depth": 2}


def test_the_same_key_from_two_methods_is_refused_with_both_names() -> None:
    with pytest.raises(Conflict, match="'first' and 'second' cannot be combined: both own 'text' in their hook 'cond"):
        Moments({"first": Texts(), "second": Texts()})


def test_what_trains_may_be_claimed_twice_where_nothing_trains() -> None:
    class Learns:
        @hookimpl(claims=("denoiser", "encoder"))
        def trainable(self): ...

    moments = Moments({"first": Learns(), "second": Learns()})
    with pytest.raises(Conflict, match="both own 'denoiser' in their hook 'trainable'"):
        moments.check_claims("trainable")


def test_what_is_supplied_without_a_claim_is_refused_with_the_mend() -> None:
    class Silent:
        @hookimpl
        def condition(self):
            return {"silent.tone": 1, "text": 2}

    with pytest.raises(VidgenError, match=r"'silent' supplies 'text' .* @hookimpl\(claims='text'\).*'silent.text'"):
        Moments({"silent": Silent()}).condition(run=None, window=None)


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("attach", "claims 'attention' in its hook 'attach', which can claim only: self_attention, cross_attention"),
        ("after_step", "claims 'attention' in its hook 'after_step', which can claim nothing"),
        ("plan", "claims 'attention' in its hook 'plan', which can claim only: plan"),
    ],
)
def test_a_claim_of_what_cannot_be_had_is_refused(hook, message) -> None:
    def function(self): ...

    function.__name__ = hook
    with pytest.raises(BadRequest, match=message):
        Moments({"mine": type("Mine", (), {hook: hookimpl(claims="attention")(function)})()})


def test_a_name_with_a_dot_is_claimed_by_what_it_begins_with() -> None:
    class Dotted:
        @hookimpl(claims=("mask", "mask.soft"))
        def condition(self): ...

    with pytest.raises(BadRequest, match=r"claims 'mask.soft' .* up to the first dot: claims='mask'"):
        Moments({"dotted": Dotted()})


def test_the_name_of_a_method_is_its_own_claim() -> None:
    class Named:
        @hookimpl
        def condition(self):
            return {"text": 1}

    assert Moments({"text": Named()}).condition(run=None, window=None) == {"text": 1}
    with pytest.raises(Conflict, match="'talc' and 'text' cannot be combined: both own 'text'"):
        Moments({"talc": Texts(), "text": Named()})


def test_a_plan_that_its_method_cannot_do_without_stays_its_own() -> None:
    class Needs:
        @hookimpl(claims="plan")
        def plan(self): ...

    methods = {"plans": Plans(), "needs": Needs()}
    with pytest.raises(Conflict, match=r"'plans' and 'needs' both .* out, or pick: owner.plan=needs\.$"):
        Moments(methods)
    assert Moments(methods, {"plan": "needs"}).owners("plan") == ["needs"]
    for other in ("plans", "core"):
        with pytest.raises(Conflict, match=f"owner.plan={other} takes 'plan' from 'needs', which cannot do without it"):
            Moments(methods, {"plan": other})


def test_two_methods_that_lay_the_scenes_of_one_request_are_refused() -> None:
    class Lays:
        def __init__(self, stop):
            self.stop = stop

        @hookimpl
        def prepare_request(self, request):
            return SimpleNamespace(videos=[SimpleNamespace(scenes=[SimpleNamespace(start=0, stop=self.stop)])])

    asked = SimpleNamespace(videos=[SimpleNamespace(scenes=[])])
    agreed = Moments({"one": Lays(4), "same": Lays(4)}).prepare_request(request=asked)
    assert agreed.videos[0].scenes[0].stop == 4
    with pytest.raises(Conflict, match="'one' and 'other' cannot be combined: both lay scenes on the frames"):
        Moments({"one": Lays(4), "other": Lays(6)}).prepare_request(request=asked)


def test_any_object_with_hooks_is_a_method() -> None:
    @dataclass
    class Compared:
        amount: int

        @hookimpl
        def after_step(self, latents):
            return latents + self.amount

    same = Compared(2)
    assert after_step(Moments({"one": same, "other": same, "third": Compared(2)}), 1) == 7


def test_what_fails_as_a_context_is_entered_is_told_of_its_method() -> None:
    class Fails:
        @hookimpl
        @contextmanager
        def attach(self):
            raise ZeroDivisionError("boom")
            yield

    moments = Moments({"fails": Fails()})
    with pytest.raises(VidgenError, match="'fails' failed in its hook 'attach': ZeroDivisionError: boom"):
        moments.attach(run=None, backbone=None).__enter__()
    assert moments.failed_in == "attach of fails"


def test_what_replaces_attention_is_attached_before_what_wraps_it() -> None:
    class Wraps:
        @hookimpl
        def attach(self): ...

    class Replaces:
        @hookimpl(claims="self_attention")
        def attach(self): ...

    methods = {"first": Wraps(), "second": Wraps(), "new": Replaces()}
    assert Moments(methods).owners("attach") == ["new", "first", "second"]
    with pytest.raises(Conflict, match="'new' and 'newer' cannot be combined: both own 'self_attention'"):
        Moments({**methods, "newer": Replaces()})


def test_observers_all_run_and_their_results_are_ignored() -> None:
    seen = []
    observers = {
        name: method(deliver=lambda block, name=name: seen.append((name, block)) or "ignored") for name in "ab"
    }
    assert Moments(observers).deliver(run=None, block=7) is None
    assert seen == [("a", 7), ("b", 7)]


def test_a_misspelt_hook_is_refused_with_the_nearest() -> None:
    class Misspelt:
        @hookimpl
        def conditions(self):
            return {}

    with pytest.raises(
        BadRequest, match="'bad' implements a hook 'conditions' that does not exist. Did you mean 'condition'"
    ):
        Moments({"bad": Misspelt()})


def test_an_unknown_argument_is_refused_with_the_nearest() -> None:
    class Asks:
        @hookimpl
        def plan(self, runn):
            return []

    with pytest.raises(BadRequest, match="'runn' in its hook 'plan'.*Did you mean 'run'"):
        Moments({"asks": Asks()})


def test_a_sole_owner_that_returns_nothing_is_named() -> None:
    class Nothing:
        @hookimpl
        def plan(self):
            return None

    with pytest.raises(Exception, match="'lazy' owns 'plan' but returned None"):
        Moments({"lazy": Nothing()}).plan(run=None)


def test_every_run_has_its_own_manager() -> None:
    adds = Adds()
    first, second = Moments({"adds": adds}), Moments({"adds": adds})
    assert after_step(first, 1) == after_step(second, 1) == 2
    assert Moments({}).owners("after_step") == []


def test_the_attach_chain_unwinds_in_reverse_also_after_an_exception() -> None:
    from contextlib import contextmanager

    log = []

    def attaches(name):
        @contextmanager
        def attach(run, backbone):
            log.append(f"{name} in")
            try:
                yield
            finally:
                log.append(f"{name} out")

        return method(attach=lambda run, backbone: attach(run, backbone))

    moments = Moments({"a": attaches("a"), "b": attaches("b")})
    with pytest.raises(ZeroDivisionError), moments.attach(run=None, backbone=None):
        raise ZeroDivisionError
    assert log == ["a in", "b in", "b out", "a out"]


def test_tracing_prints_hook_owner_and_time(capsys) -> None:
    after_step(Moments({"adds": Adds()}, trace=True), 1)
    line = capsys.readouterr().err
    assert line.startswith("trace after_step") and "adds" in line and " ms" in line


def test_every_hook_has_a_kind_and_stands_in_the_story() -> None:
    for hook in hookspecs.kinds():
        assert f"{hook}(" in hookspecs.__doc__


def test_a_hook_tells_which_arguments_its_methods_take() -> None:
    moments = Moments({"mine": method(remember=lambda latents: None)})
    assert moments.asks("remember", "latents") and not moments.asks("remember", "frames")
