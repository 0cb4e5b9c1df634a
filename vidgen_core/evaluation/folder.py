"""Videos that are there already: which files, their captions, and which frames belong to which scene."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidgen_core.data.clips import VIDEOS
from vidgen_core.errors import BadRequest, nearest
from vidgen_core.evaluation.comparison import Made
from vidgen_core.evaluation.config import Evaluation
from vidgen_core.metrics.footage import Footage
from vidgen_core.prompts import read_prompts_file
from vidgen_core.provenance import read_provenance, record_of
from vidgen_core.video import VideoReader


def find_videos(evaluation: Evaluation, need_captions: bool = True) -> Iterator[Made]:
    """Every video of the folder with its captions; none is kept, for with its frames it is large.

    A video file in the folder has its own name; ``name/video.mp4``, as a run of several videos writes it, is ``name``.

    Args:
        need_captions: Whether a video of which nobody says what it was to show is refused, or is one scene without
            a caption.

    Raises BadRequest for a folder without videos, captions that do not match them, or scenes that do not fit.
    """
    config = evaluation.config
    files = video_files(Path(config["videos"]).expanduser())
    known = _captions(files, config["captions"], need_captions)
    # Of all of them before the first is scored: that may take hours.
    spans = {name: _spans(path, *known[name], config["scene_frames"]) for name, path in files.items()}
    for name, path in files.items():
        yield Made("", name, 0, Footage(name, path, known[name][0], spans[name]))


def video_files(folder: Path, key: str = "videos") -> dict[str, Path]:
    """Name -> video file, in the order of names. Raises BadRequest for a folder of no videos, naming the key."""
    if not folder.is_dir():
        raise BadRequest(f"{key}={folder}: there is no such folder.")
    here = {path.stem: path for path in folder.iterdir() if path.suffix.lower() in VIDEOS and path.is_file()}
    below = {path.parent.name: path for path in folder.glob("*/video.mp4")}
    if set(here) == {"video"} and not below:
        here = {folder.resolve().name: here["video"]}
    files = {**below, **here}
    if not files:
        raise BadRequest(f"{key}={folder} holds no video: neither *.mp4 nor folders with a video.mp4.")
    return dict(sorted(files.items()))


Known = tuple[tuple[str, ...], "tuple[range, ...] | None"]
"""Captions, and the frames of each scene where a record tells them."""


def _captions(files: Mapping[str, Path], captions: str | None, needed: bool) -> dict[str, Known]:
    records: dict[Path, dict[str, Known]] = {}
    if captions is None:
        known: dict[str, Known] = {}
        for name, path in files.items():
            recorded = _record_of(path, name, records)
            if recorded is None and needed:
                raise BadRequest(
                    f"'{path}' holds no record of what it was to show. Give captions=<file>: name -> scenes, as json."
                )
            known[name] = recorded or ((), None)
        return known
    told = read_prompts_file(Path(captions).expanduser())
    if set(told) == {""} and len(files) == 1:
        told = {next(iter(files)): told[""]}
    for name in files:
        if name not in told:
            raise BadRequest(f"captions={captions} has none for the video '{name}'.{nearest(name, told)}")
    for name in told:
        if name not in files:
            raise BadRequest(f"captions={captions} names '{name}', of which there is no video.{nearest(name, files)}")
    known = {}
    for name, path in files.items():
        recorded = _record_of(path, name, records)
        spans = recorded[1] if recorded and recorded[1] and len(recorded[1]) == len(told[name]) else None
        known[name] = (told[name], spans)
    return known


def _record_of(path: Path, name: str, records: dict[Path, dict[str, Known]]) -> Known | None:
    """What a video was to show, by the record beside it or inside it; None for one that vidgen did not make."""
    file = record_of(path)
    if file not in records:
        try:
            records[file] = _laid_out(read_provenance(file)["config"])
        except (BadRequest, KeyError, TypeError):
            records[file] = {}
    known = records[file]
    return known.get(name) or (next(iter(known.values())) if len(known) == 1 else None)


def _laid_out(config: Mapping[str, Any]) -> dict[str, Known]:
    """Video name -> captions and scenes, as the methods of the recorded run lay them on the frames."""
    from vidgen_core.config import recompose
    from vidgen_core.run import batches_of

    known: dict[str, Known] = {}
    for request, _ in batches_of(recompose(config)):
        for video in request.videos:
            spans = tuple(range(scene.start, scene.stop) for scene in video.scenes)
            known[video.name] = (video.prompts, spans if len(spans) == len(video.prompts) else None)
    return known


def _spans(
    path: Path, captions: Sequence[str], recorded: tuple[range, ...] | None, asked: int | Sequence[int] | None
) -> tuple[range, ...]:
    """The frames of each scene: as asked, else as recorded, else even shares of what the file holds."""
    frames, scenes = len(VideoReader(path)), max(len(captions), 1)
    if frames < scenes:
        raise BadRequest(f"'{path}' has {frames} frames, too few for {scenes} captions.")
    if asked is not None:
        counts = list(asked) if isinstance(asked, Sequence) else [asked] * scenes
        if len(counts) != scenes or sum(counts) > frames:
            raise BadRequest(
                f"scene_frames={asked} does not fit '{path}', which has {frames} frames and {scenes} captions."
            )
        stops = [sum(counts[: i + 1]) for i in range(scenes)]
        return tuple(range(stop - count, stop) for stop, count in zip(stops, counts, strict=True))
    if recorded is not None and recorded[-1].stop <= frames:
        return recorded
    return tuple(range(i * frames // scenes, (i + 1) * frames // scenes) for i in range(scenes))
