"""A killed run and its resume give the frames of a run that nobody killed, wherever it was killed, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vidgen_core import hookimpl, journal, placement
from vidgen_core.config import compose
from vidgen_core.provenance import read_provenance
from vidgen_core.run import generate
from vidgen_core.video import read_video

ASKED = [
    *("model=tiny", "num_inference_steps=2", "streaming.chunk=4", "streaming.overlap=2"),
    *("height=32", "width=32", "num_frames=9", "output.frames=true", "output.latents=true"),
]
REFINED = [
    *("streaming.refine=true", "streaming.refine_size=[48,32]", "streaming.refine_chunk=3"),
    *("streaming.refine_overlap=1", "streaming.refine_steps=1"),
]
RUNS = {
    "plain": ["method=streaming"],
    "refined": ["method=streaming", *REFINED],
    "story": ["method=[talc,streaming]", 'prompt=["a", "b"]', "talc.scene_frames=[5,4]"],
    "last_frame": ["method=streaming", "streaming.mode=last_frame"],
    "image": ["method=streaming", "image=start.png"],
}
MOMENTS = ("step", "remember", "deliver", "journal")


class Copies:
    """Keeps the folder of a run as SIGKILL would leave it at several moments of its third window."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.line = folder, journal._line
        patch.setattr(journal, "_line", self.add)

    def copy(self, moment: str) -> None:
        if not (copied := self.folder.with_name(moment)).exists():
            shutil.copytree(self.folder, copied)

    @hookimpl
    def on_step(self, run: Any, window: Any, step: Any) -> None:
        if run.stage == "base" and window.index == 2 and step.index == 1:
            self.copy("step")

    @hookimpl
    def remember(self, run: Any, window: Any) -> None:
        if run.stage == "base" and window.index == 2:
            self.copy("remember")

    @hookimpl
    def deliver(self, block: Any) -> None:
        if 5 in block.span:
            self.copy("deliver")

    def add(self, entry: dict[str, Any]) -> str:
        if entry["window"] == 2:  # its tensors are there, its line is not
            self.copy("journal")
        return self.line(entry)


@pytest.fixture(scope="module", params=RUNS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[str]]]:
    """A run that nobody killed, in a place with little memory, and beside it what kills would have left of it."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    Image.effect_noise((32, 32), 80).convert("RGB").save(folder.with_name("start.png"))
    more = [argument.replace("start.png", str(folder.with_name("start.png"))) for argument in RUNS[request.param]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "free_memory", lambda device: 1000)
        generate(compose([*ASKED, *more, f"output.dir={folder}"]), {"copies": Copies(folder, patch)})
    yield folder, more


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [*folder.glob("frames/*.png"), folder / "latents.safetensors"]}


@pytest.mark.parametrize("moment", MOMENTS)
def test_wherever_it_was_killed_the_frames_are_the_same(whole: tuple[Path, list[str]], moment: str) -> None:
    folder, more = whole
    killed = folder.with_name(moment)
    kept = read_video(killed / "video.mp4")
    generate(compose([*ASKED, *more, f"output.dir={killed}", "resume=true"]))
    assert len(list(folder.glob("frames/*.png"))) == 9
    assert contents(killed) == contents(folder)
    resumed, once = read_video(killed / "video.mp4"), read_video(folder / "video.mp4")
    assert len(resumed) == 9
    assert (resumed[: len(kept)] == once[: len(kept)]).all()  # they were not encoded again


def test_a_resume_is_placed_as_the_run_was_where_nobody_asks_otherwise(whole: tuple[Path, list[str]]) -> None:
    folder, more = whole
    before = read_provenance(folder / "run.yaml")
    assert before["placement"]["guidance"] == "two_pass"
    for name, asked, guidance in (("step", [], "two_pass"), ("other", ["placement.guidance=batched"], "batched")):
        if name == "other":
            shutil.copytree(folder, folder.with_name(name))
            (folder.with_name(name) / "journal/000").mkdir(parents=True)
        generate(compose([*ASKED, *more, *asked, f"output.dir={folder.with_name(name)}", "resume=true"]))
        record = read_provenance(folder.with_name(name) / "run.yaml")
        assert record["placement"] == {**before["placement"], "guidance": guidance}
        assert record["config"]["placement"]["vae_slice"] == 0
        if "streaming.refine=true" in more:
            assert record["placements"]["refine"] == {**before["placements"]["refine"], "guidance": guidance}
