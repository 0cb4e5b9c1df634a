"""The page of results: what it shows of a clip and the videos that are edits of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidgen_core.evaluation import page
from vidgen_core.evaluation.results import Results, Scored
from vidgen_core.video_writer import VideoWriter


def video(path: Path, grey: int) -> Path:
    writer = VideoWriter(path, 8)
    writer.write(np.full((2, 16, 16, 3), grey, np.uint8))
    writer.close()
    return path


def test_a_clip_is_encoded_once_for_all_its_edits_on_a_page_and_anew_for_the_next(tmp_path, monkeypatch) -> None:
    source, encoded = page._source, []
    monkeypatch.setattr(page, "_source", lambda path: encoded.append(path) or source(path))
    clip, plot = tmp_path / "clip.mp4", tmp_path / "plot.png"
    plot.touch()
    made = video(tmp_path / "made.mp4", 0)
    edits = [Scored("row", story, 0, made, ("x",), (range(2),), {}, clip) for story in ("a", "b")]
    results = Results("Edits", {"row": "Row"}, [], "", edits)
    written = []
    for grey in (50, 200):
        video(clip, grey)
        written.append(page.write_page(results, tmp_path / "page.html", plot, 9).read_text())
    assert encoded == [clip, clip]
    assert [text.count("<figcaption>Source") for text in written] == [2, 2] and written[0] != written[1]
