"""What a training leaves to read, on a disk that refuses and after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate import Accelerator

from vidgen_core.errors import VidgenError
from vidgen_core.training.log import TrainingLog


def log(folder: Path) -> TrainingLog:
    return TrainingLog(folder, Accelerator(cpu=True), 1, 0)


def test_a_disk_that_refuses_the_list_of_what_was_skipped_is_told_in_a_paragraph(tmp_path: Path) -> None:
    (tmp_path / "skipped.jsonl").mkdir()
    with pytest.raises(VidgenError, match=r"skipped.jsonl' could not be written.*The checkpoints stay"):
        log(tmp_path).skip([("a.mp4", "it is damaged")])


def test_what_is_skipped_after_a_line_that_a_kill_left_torn_is_read_again(tmp_path: Path) -> None:
    log(tmp_path).skip([("a.mp4", "it is damaged")])
    with (tmp_path / "skipped.jsonl").open("a") as file:
        file.write('{"item": "b.m')
    log(tmp_path).skip([("c.mp4", "it is empty")])
    assert log(tmp_path).skipped == {"a.mp4": "it is damaged", "c.mp4": "it is empty"}
