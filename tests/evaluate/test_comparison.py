"""An experiment of a third party: rows are commands, finished videos stay, and the report has every number."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vidgen_core import cli, run
from vidgen_core.evaluation.config import compose_evaluation
from vidgen_core.models import loading, tiny
from vidgen_core.models.saving import save_backbone

CARD = "from vidgen_core import Plugin\nplugin = Plugin('walks', 'a test', __name__, is_method=False)\n"
EXPERIMENT = """\
    # Two numbers of steps.
    command: evaluate
    title: Do steps matter?
    n: 2 # int >= 1, stories
    seeds: [0] # int >= 0 or a list of them
    scene_frames: 2 # int >= 1
    batch_size: 2 # int >= 1
    one:
      steps: 1 # int >= 1, steps of the first row
    compare: [one, two]
    reference: two
    metric: [brightness]
    stories: {_target_: third_party_walks.parts.stories, n: "${n}"}
    request: [model=tiny, "num_frames=${scene_frames}", height=16, width=16, guidance_scale=1]
    rows:
      one: {label: One step, request: ["num_inference_steps=${one.steps}"]}
      two: {label: Two steps, request: [num_inference_steps=2]}
    """
METRIC = """\
    # @package metrics.brightness
    # How bright a video is.
    _target_: third_party_walks.parts.Brightness
    scale: 1.0 # number >= 0, multiplies the score
    """
PARTS = """
    class Brightness:
        columns = ("brightness",)

        def __init__(self, scale):
            self.scale = scale

        def score(self, footage):
            assert [len(footage.frames)] == [len(span) for span in footage.spans]
            return {"brightness": self.scale * footage.frames.mean() / 255}


    def stories(n):
        return {f"walk_{i}": (f"a man walks {i} miles",) for i in range(n)}
    """


@pytest.fixture
def walks(install_plugin) -> None:
    files = {"conf/experiment/steps.yaml": EXPERIMENT, "conf/metric/brightness.yaml": METRIC, "parts.py": PARTS}
    install_plugin("walks", CARD, files)


def evaluate(folder: Path, *arguments: str) -> int:
    return cli.main(["evaluate", "experiment=steps", f"output.dir={folder}", *arguments])


def refuse(*arguments: object, **keywords: object) -> None:
    raise AssertionError("a video was made")


def test_the_report_has_a_mean_for_every_row_and_the_difference_to_the_reference(walks, tmp_path, capsys) -> None:
    assert evaluate(tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert "Do steps matter?: 2 stories" in out
    assert "Two steps minus the others" in out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["rows"]) == ["one", "two"]
    means = [results["rows"][row]["means"]["brightness"]["mean"] for row in ("one", "two")]
    assert results["differences"]["one"]["brightness"]["mean"] == pytest.approx(means[1] - means[0])
    assert {(video["row"], video["story"]) for video in results["videos"]} == {
        (row, story) for row in ("one", "two") for story in ("walk_0", "walk_1")
    }
    assert all((tmp_path / "out" / video["path"]).is_file() for video in results["videos"])
    assert out.splitlines()[-4:] == [
        str(tmp_path / "out" / n) for n in ("table.txt", "results.json", "plot.png", "index.html")
    ]


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "data-src")]


def test_the_page_shows_all_videos_and_needs_nothing_beside_it(walks, tmp_path) -> None:
    assert evaluate(tmp_path / "out") == 0
    text = (tmp_path / "out" / "index.html").read_text()
    sources = Page(text).sources
    assert len([source for source in sources if source.startswith("data:video/mp4")]) == 4
    assert all(source.startswith("data:") for source in sources)
    assert "a man walks 1 miles" in text


def test_finished_videos_are_taken_as_they_are(walks, tmp_path, monkeypatch) -> None:
    assert evaluate(tmp_path / "out", "n=1") == 0
    (tmp_path / "out").rename(tmp_path / "moved")
    with monkeypatch.context() as patched:
        patched.setattr(run, "generate", refuse)
        assert evaluate(tmp_path / "moved", "n=1", "metrics.brightness.scale=2", "page_videos=0") == 0
    made = []
    monkeypatch.setattr(
        run, "generate", lambda composed, observers, make=run.generate: made.append(composed) or make(composed)
    )
    assert evaluate(tmp_path / "moved", "n=1", "seeds=[0,1]", "compare=[one]") == 0
    assert [composed.config["output"]["dir"] for composed in made] == [
        str(tmp_path / "moved" / "videos" / "one" / "seed_1" / "walk_0_to_walk_0")
    ]


def test_an_interrupted_comparison_goes_on(walks, tmp_path, monkeypatch, capsys) -> None:
    made = []

    def interrupted(composed, observers):
        if made:
            raise KeyboardInterrupt
        made.append(composed)
        return whole(composed)

    whole = run.generate
    with monkeypatch.context() as patched:
        patched.setattr(run, "generate", interrupted)
        assert evaluate(tmp_path / "out") == 130
    capsys.readouterr()
    assert evaluate(tmp_path / "out") == 0
    assert "2 videos are there already." in capsys.readouterr().err


def test_videos_that_were_made_otherwise_are_refused_unless_they_may_be_made_again(walks, tmp_path, capsys) -> None:
    assert evaluate(tmp_path / "out", "compare=[one]", "n=1") == 0
    assert evaluate(tmp_path / "out", "compare=[one]", "n=1", "one.steps=2") == 2
    assert "were made with other num_inference_steps" in capsys.readouterr().err
    assert evaluate(tmp_path / "out", "compare=[one]", "n=1", "one.steps=2", "output.overwrite=true") == 0
    assert evaluate(tmp_path / "out", "compare=[one]", "n=1", "one.steps=2") == 0


def test_a_model_is_known_again_by_the_files_of_its_variant_which_are_hashed_once(
    install_plugin, tmp_path, monkeypatch
) -> None:
    model = tmp_path / "model"
    save_backbone(tiny.build(), model, torch.float32)
    for plain in model.glob("*/*.safetensors"):
        half = {name: tensor.half() for name, tensor in load_file(plain).items()}
        save_file(half, plain.with_suffix(".fp16.safetensors"), {"format": "pt"})
    of_a_folder = EXPERIMENT.replace("model=tiny", f"model=modelscope, 'model.path={model}'")
    files = {"conf/experiment/steps.yaml": of_a_folder, "conf/metric/brightness.yaml": METRIC, "parts.py": PARTS}
    install_plugin("walks", CARD, files)
    assert evaluate(tmp_path / "out", "n=1") == 0
    hashed = []
    monkeypatch.setattr(loading, "file_hash", lambda file, of=loading.file_hash: hashed.append(file.name) or of(file))
    monkeypatch.setattr(run, "generate", refuse)
    assert evaluate(tmp_path / "out", "n=1") == 0
    assert len(hashed) == 3 and all(name.endswith(".fp16.safetensors") for name in hashed)  # two rows, three files


def test_all_rows_start_from_the_same_noise(walks, tmp_path) -> None:
    from vidgen_core.evaluation import comparison

    evaluation = compose_evaluation(["experiment=steps", "n=50", "seeds=[0,1]"])
    parts = comparison.parts_of(evaluation, comparison.read_stories(evaluation), tmp_path)
    noise = {row: [part.noise for part in parts if part.row.name == row] for row in ("one", "two")}
    assert noise["one"] == noise["two"]
    assert len(set(noise["one"])) == len(noise["one"]) == 6  # three parts for each of two seeds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=step"], "There is no experiment 'step'. Did you mean 'steps'?"),
        (["experiment=steps", "metric=brigtness"], "There is no metric 'brigtness'. Did you mean 'brightness'?"),
        (["experiment=steps", "compare=[one,three]"], "compare=three: there is no such row"),
        (["experiment=steps", "sseeds=3"], "There is no key 'sseeds'. Did you mean 'seeds'?"),
        (["experiment=steps", "seed=3"], "write seeds=[...]"),
        (["experiment=steps", "num_inference_steps=3"], "the rows of this experiment set that key"),
        (["experiment=steps", "n=0"], "must be at least 1"),
        (["experiment=steps", "n=2", "n=3"], "n= was written 2 times"),
        (["experiment=steps", "videos=somewhere"], "Leave one out"),
        (["experiment=steps", "trainer.max_steps=1"], "trainer.max_steps"),
        ([], "Say what to evaluate"),
    ],
    ids=str,
)
def test_a_mistake_is_one_paragraph_before_anything_is_made(
    walks, tmp_path, monkeypatch, capsys, arguments, message
) -> None:
    monkeypatch.setattr(run, "generate", refuse)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_claim_compares_the_four_rows_of_the_paper() -> None:
    rows = "compare=[merged,separate,talc,talc_fine_tuned]"
    evaluation = compose_evaluation(
        ["experiment=talc_claim", rows, "base.path=folder with, a comma", "fine_tuned.path=tuned"]
    )
    assert [row.label for row in evaluation.rows] == [
        "Merged captions",
        "Separate clips",
        "TALC, not tuned",
        "TALC, fine-tuned",
    ]
    assert "model.path=folder with, a comma" in evaluation.rows[0].request
    assert "model.path=tuned" in evaluation.rows[3].request


def test_experiments_metrics_and_judges_are_listed_and_shown(walks, capsys) -> None:
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    for name, summary in {"steps": "Two numbers of steps.", "brightness": "How bright a video is."}.items():
        assert f"{name} " in out and summary in out
    assert cli.main(["show", "brightness", "steps"]) == 0
    out = capsys.readouterr().out
    assert "metrics.brightness.scale=1.0  number >= 0, multiplies the score" in out
    assert "one.steps=1" in out and "label" not in out


def test_the_claim_runs_with_the_model_that_comes_with_the_package(tmp_path, capsys) -> None:
    small = ["n=1", "scene_frames=2", "num_inference_steps=1", "compare=[merged,separate]", "reference=merged"]
    assert cli.main(["evaluate", "experiment=talc_claim", *small, f"output.dir={tmp_path / 'out'}"]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["columns"] == ["entity", "background", "visual", "text", "overall"]
    assert [(video["row"], len(video["captions"])) for video in results["videos"]] == [("merged", 2), ("separate", 2)]
    assert all(0 <= video["scores"]["text"] <= 1 for video in results["videos"])
    assert "Merged captions minus the others" in capsys.readouterr().out
