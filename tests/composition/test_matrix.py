"""Every list of two methods runs and needs both, or is refused by name before weights load; the README says which."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vidgen_core import Plugin, cli, hookimpl
from vidgen_core.api import generate
from vidgen_core.attention import install
from vidgen_core.errors import Conflict
from vidgen_core.matrix import FAULTY, REFUSED, RUNS, Matrix, Verdict, table
from vidgen_core.plugin import discover
from vidgen_core.unpackaged import joined, of_object

README = Path(__file__).parents[2] / "README.md"
MATRIX = Matrix(discover())
MUST_RUN = (
    *(("talc", "streaming"), ("tf_t2v", "talc"), ("tf_t2v", "streaming"), ("tune_a_video", "talc"), ("depth", "talc")),
    ("talc", "streaming", "tf_t2v"),
)


@pytest.mark.parametrize("pair", MATRIX.pairs, ids="-".join)
def test_every_pair_runs_with_an_effect_of_both_or_is_refused_by_name(pair: tuple[str, ...]) -> None:
    verdict = MATRIX.tried(pair)
    assert verdict.outcome in (RUNS, REFUSED), verdict.told
    if verdict.outcome == REFUSED:
        assert all(f"'{name}'" in verdict.told for name in pair)
        assert re.search("Leave one|Use method=", verdict.told)


def test_the_table_of_the_readme_is_what_comes_of_it() -> None:
    verdicts = list(MATRIX.verdicts())
    assert not [verdict.told for verdict in verdicts if verdict.outcome == FAULTY]
    run = [set(verdict.methods) for verdict in verdicts if verdict.outcome == RUNS]
    for methods in MUST_RUN:
        assert run.count(set(methods)) == (2 if len(methods) == 2 else 6), methods
    assert table(verdicts) in README.read_text(encoding="utf-8")


def test_a_picture_is_read_by_both_methods_that_read_one(tmp_path: Path) -> None:
    from PIL import Image

    Image.effect_noise((32, 32), 80).convert("RGB").save(tmp_path / "first.png")
    options = {"chunk": 2, "overlap": 1, "hidden": 32, "embedding_widths": [8, 8, 8, 8]}
    keys = {"height": 32, "width": 32, "num_frames": 4, "num_inference_steps": 1, "output.root": str(tmp_path)}
    keys |= {"model": "tiny", "image": tmp_path / "first.png", "streaming": options}
    alone = generate(method="streaming", **keys).frames
    for method in (["tf_t2v", "streaming"], ["streaming", "tf_t2v"]):
        frames = generate(method=method, **keys).frames
        assert (frames[0] == alone[0]).all()  # the picture, with which the video begins
        assert (frames[1:] != alone[1:]).any()  # and which says what is shown


# --------------------------------------------------------------------------------------- what the matrix finds


class Tints:
    """Adds to the latents after every step."""

    @hookimpl
    def after_step(self, latents):
        return latents + 0.3


class Yields:
    """Adds too, but not where Tints runs."""

    @hookimpl
    def after_step(self, run, latents):
        return None if "tints" in run.moments.methods else latents + 0.6


class Idle:
    @hookimpl
    def on_step(self): ...


class Plans:
    @hookimpl
    def plan(self, run):
        from vidgen_core.sampling import one_window

        return one_window(run)


class PlansToo(Plans):
    pass


class Fails:
    @hookimpl
    def on_step(self, run):
        assert len(run.moments.methods) == 1, "it is not alone"


class Texts:
    @hookimpl(claims="text")
    def condition(self, run, window):
        from vidgen_core.conditioning import text_per_frame

        return {"text": text_per_frame(run, window)}


class TextsToo(Texts):
    pass


class Refuses:
    @hookimpl
    def on_step(self, run):
        if len(run.moments.methods) > 1:
            raise Conflict("'tints' and 'refuses' do not go together.", over="on_step")


class Trains:
    @hookimpl
    def losses(self):
        return {}


def verdict_of(*methods: object):
    entries = [of_object(method) for method in methods]
    names = [entry.name for entry in entries]
    return Matrix(joined(discover(), entries), names).tried(tuple(names))


@pytest.mark.parametrize(
    ("methods", "outcome", "words"),
    [
        ((Plans(), PlansToo()), REFUSED, "'plans' and 'plans_too' both want to own 'plan'.*owner.plan=plans"),
        ((Tints(), Yields()), FAULTY, "'yields' changes nothing beside 'tints'"),
        ((Tints(), Trains()), RUNS, "^$"),
        ((Tints(), Idle()), FAULTY, "'idle' changes nothing beside 'tints'. Nor alone: its card's `trial` must give"),
        ((Tints(), Fails()), FAULTY, "'fails' failed in its hook 'on_step': AssertionError: it is not alone"),
        ((Texts(), TextsToo()), REFUSED, "'texts' and 'texts_too' cannot be combined: both own 'text' in their hook"),
        ((Tints(), Refuses()), FAULTY, "'tints' and 'refuses' .* only when weights are loaded: .*by `claims`, or"),
    ],
)
def test_what_is_wrong_with_a_pair_is_said(methods, outcome, words) -> None:
    verdict = verdict_of(*methods)
    assert verdict.outcome == outcome
    assert re.search(words, verdict.told)


class Calms:
    """Wraps the self-attention of an image model."""

    plugin = Plugin("calms", "a test", __name__, families=("unet2d",))

    @hookimpl
    def attach(self, backbone):
        class Halved:
            def __init__(self, inner):
                self.inner, self.backend = inner, inner.backend

            def __call__(self, *args, **kwargs):
                return 0.5 * self.inner(*args, **kwargs)

        def where(name, module):
            return name.endswith("attn1")

        return install(backbone.denoiser, where, lambda name, module, inner: Halved(inner), owner="calms")


def test_a_wrapped_attention_is_around_one_that_is_replaced_wherever_the_list_names_it() -> None:
    tried = Matrix(joined(discover(), [of_object(Calms())]), ["calms", "tune_a_video"]).tried
    for pair in (("calms", "tune_a_video"), ("tune_a_video", "calms")):
        assert tried(pair).outcome == RUNS, tried(pair).told


def test_one_method_with_all_others_is_a_row_for_each() -> None:
    refused = Verdict(("a", "b"), REFUSED, "plan")
    verdicts = [refused, Verdict(("b", "a"), RUNS), Verdict(("a", "c"), RUNS), Verdict(("c", "a"), RUNS)]
    head, _, b, c = table(verdicts).splitlines()
    assert head == "| | `a`, then it | it, then `a` |"
    assert (b, c) == ("| `b` | `plan` | runs |", "| `c` | runs | runs |")


def test_the_command_tries_the_pairs_of_a_file_and_says_what_is_wrong(tmp_path: Path, capsys) -> None:
    file = tmp_path / "idle.py"
    file.write_text("from vidgen_core import hookimpl\nclass Idle:\n    @hookimpl\n    def on_step(self): ...\n")
    assert cli.main(["matrix", "talc", "idle", f"plugin={file}"]) == 1
    out, err = capsys.readouterr()
    assert "method=[talc,idle] faulty" in err
    assert "| `talc` | FAULTY |  |" in out
    assert "FAULTY: method=[talc,idle]: 'idle' changes nothing beside 'talc'" in out
    assert cli.main(["matrix", "depth", "tune_a_video"]) == 0
    assert capsys.readouterr().out.count("refused:") == 1
    assert cli.main(["matrix", "tlac"]) == cli.main(["matrix", "model=tiny"]) == 2
