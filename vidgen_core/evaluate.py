"""`vidgen evaluate`, from beginning to end.

The videos are made, row by row (``evaluation/comparison.py``), by models that are tuned or trained first where the
experiment asks for it (``edits.py``, ``trained.py``), or found in a folder (``folder.py``); every metric scores every
video, or every set of them; means, intervals and paired differences go into a table, ``results.json``, a plot and one
page that shows the videos side by side. Whatever is finished is never made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidgen_core import provenance
from vidgen_core.errors import VidgenError
from vidgen_core.evaluation import comparison, edits, trained
from vidgen_core.evaluation.config import Evaluation, Instruments
from vidgen_core.evaluation.folder import find_videos
from vidgen_core.evaluation.page import write_page
from vidgen_core.evaluation.plot import draw
from vidgen_core.evaluation.results import Results, Scored, ScoredSet
from vidgen_core.evaluation.table import table
from vidgen_core.metrics.footage import Metric, SetMetric, columns_of, numbers_of, with_means


def evaluate(evaluation: Evaluation) -> tuple[Results, list[Path]]:
    """Run an evaluation; returns what was found and the files written: table, JSON, plot, page.

    Raises:
        BadRequest: what was asked cannot be done; VidgenError for a run that failed.
    """
    folder = folder_of(evaluation)
    instruments = evaluation.build_metrics()
    if instruments.judge is not None:
        instruments.judge.keep(folder / "answers.jsonl")
    videos: list[Scored] = []
    seen: dict[tuple[str, int], dict[str, list[Any]]] = {}
    for made in _videos(evaluation, instruments, folder):
        videos.append(scored(made, instruments.metrics))
        of_set = seen.setdefault((made.row, made.seed), {name: [] for name in instruments.set_metrics})
        for name, metric in instruments.set_metrics.items():
            of_set[name].append(metric.see(made.footage))
    results = Results(
        title=str(evaluation.config.get("title") or "Evaluation"),
        rows={row.name: row.label for row in evaluation.rows} or {"": "all videos"},
        columns=columns_of(instruments.all),
        reference=str(evaluation.config.get("reference") or ""),
        videos=videos,
        accounts=_accounts(instruments),
        about=_about(evaluation),
        numbers=numbers_of(instruments.all),
        sets=[scored_set(*whose, kept, instruments.set_metrics) for whose, kept in seen.items() if kept],
        by_seed=evaluation.config.get("units") == "seeds",
    )
    return results, write(results, folder, int(evaluation.config["page_videos"]))


def folder_of(evaluation: Evaluation) -> Path:
    """``output.dir``, or a folder named by the experiment, in which the same command goes on."""
    output = evaluation.config["output"]
    if output["dir"]:
        return Path(output["dir"]).expanduser()
    return Path(output["root"]).expanduser() / (evaluation.experiment or "evaluation")


def scored(made: comparison.Made, metrics: Mapping[str, Metric]) -> Scored:
    """One video with the scores of every metric, and their means."""
    scores: dict[str, float | None] = {}
    for name, metric in metrics.items():
        for score, value in metric.score(made.footage).items():
            if score in scores:
                raise VidgenError(f"The metrics give the score '{score}' twice; the second is '{name}'. Choose one.")
            scores[score] = value
    seen = made.footage
    return Scored(
        made.row, made.story, made.seed, seen.path, seen.captions, seen.spans, with_means(scores), seen.source
    )


def scored_set(row: str, seed: int, seen: Mapping[str, Sequence[Any]], metrics: Mapping[str, SetMetric]) -> ScoredSet:
    """All videos of a row and seed with the scores of every metric of sets, from what those kept of each video."""
    scores: dict[str, float | None] = {}
    for name, metric in metrics.items():
        scores |= metric.score_set(seen[name])
    return ScoredSet(row, seed, scores)


def write(results: Results, folder: Path, page_videos: int) -> list[Path]:
    """The report's files in a folder; returns them, the page last."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "table.txt"
    text.write_text(table(results) + "\n", encoding="utf-8")
    files = [text, results.write(folder), draw(results, folder / "plot.png")]
    if page_videos:
        files.append(write_page(results, folder / "index.html", files[-1], page_videos))
    return files


def _videos(evaluation: Evaluation, instruments: Instruments, folder: Path) -> Iterator[comparison.Made]:
    if not evaluation.experiment:
        asked = any(getattr(metric, "needs_captions", True) for metric in instruments.all.values())
        return find_videos(evaluation, need_captions=asked)
    if "clips" in evaluation.config:
        return edits.make(evaluation, folder)
    if "trainings" in evaluation.config:
        return trained.make(evaluation, folder)
    parts = comparison.parts_of(evaluation, comparison.read_stories(evaluation), folder)
    return comparison.make(evaluation, parts, folder)


def _accounts(instruments: Instruments) -> dict[str, Mapping[str, Any]]:
    counted = {name: metric.account() for name, metric in instruments.metrics.items() if hasattr(metric, "account")}
    return counted | ({"judge": instruments.judge.account()} if instruments.judge is not None else {})


def _about(evaluation: Evaluation) -> dict[str, Any]:
    return {
        **provenance.record(evaluation.config, {}),
        "request": list(evaluation.request),
        "commands": {row.name: list(row.request) for row in evaluation.rows},
    }
