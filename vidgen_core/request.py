"""What the user asked for: videos made of scenes on a frame axis, sizes, seed, guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vidgen_core.errors import BadRequest


@dataclass(frozen=True)
class Scene:
    """A prompt and the absolute frames [start, stop) that it describes."""

    prompt: str
    start: int
    stop: int
    negative_prompt: str = ""

    @property
    def frames(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class VideoRequest:
    """One video: what was written for each scene; ``scenes`` is filled in when the frames are known."""

    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...] = ("",)  # one for all scenes, or one per scene
    index: int = 0  # keys the noise; stays the same whatever the batch
    name: str = ""  # names the output folder when there are several videos
    spans: tuple[int, ...] = ()  # frames of each scene, where they are known beforehand, as in training
    scenes: tuple[Scene, ...] = ()

    def scene_at(self, frame: int) -> int:
        """The index of the scene that holds an absolute frame; the last scene holds all later frames."""
        for i, scene in enumerate(self.scenes):
            if frame < scene.stop:
                return i
        return len(self.scenes) - 1


@dataclass(frozen=True)
class Request:
    """What one run must make. ``options`` keeps what the user set explicitly (for defaults and errors)."""

    videos: tuple[VideoRequest, ...]
    num_frames: int
    height: int
    width: int
    fps: int
    seed: int
    guidance_scale: float
    num_inference_steps: int
    image: str | None = None
    video: str | None = None
    given: frozenset[str] = field(default_factory=frozenset)  # request keys that the user wrote
    textless: bool = False  # no prompt was given, since a key of a method's card, `shown_by`, says what is shown

    def replace(self, **changes: Any) -> Request:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def validate(self, size_multiple: int = 8) -> None:
        """Raise BadRequest for values that no model can take. Sizes must divide by ``size_multiple``."""
        if not self.videos:
            raise BadRequest("No prompt was given. Write prompt='...' (or prompts_file=...).")
        for video in self.videos:
            if not video.prompts or (not self.textless and any(not p.strip() for p in video.prompts)):
                raise BadRequest("The prompt is empty. Write what the video should show: prompt='a red circle ...'.")
            if len(video.negative_prompts) not in (1, len(video.prompts)):
                raise BadRequest(
                    f"There are {len(video.negative_prompts)} negative prompts for {len(video.prompts)} scenes. "
                    "Give one for all scenes, or one per scene."
                )
        for key, low in (("num_frames", 1), ("num_inference_steps", 1), ("fps", 1), ("height", 1), ("width", 1)):
            if getattr(self, key) < low:
                raise BadRequest(f"{key}={getattr(self, key)} must be at least {low}.")
        self.check_size(size_multiple)

    def check_size(self, multiple: int = 8) -> None:
        """Raise BadRequest for a height or width that does not divide by ``multiple``."""
        for key in ("height", "width"):
            size = getattr(self, key)
            if size % multiple:
                up = (size // multiple + 1) * multiple
                near = f"{up - multiple} or {up}" if up > multiple else str(up)
                raise BadRequest(f"{key}={size} is not divisible by {multiple}, as this model needs. Use {near}.")


def single_scene(request: Request) -> Request:
    """Lay one prompt per video over all frames; the default where no method arranges scenes.

    Raises BadRequest when a video has several prompts and nobody laid them out.
    """
    videos = []
    for video in request.videos:
        if video.scenes:
            videos.append(video)
            continue
        if len(video.prompts) > 1:
            raise BadRequest(
                f"prompt is a list of {len(video.prompts)} scenes, which the plain model cannot arrange. "
                "Choose a method that places scenes in time (`vidgen list` names them), or give one prompt."
            )
        scene = Scene(video.prompts[0], 0, request.num_frames, video.negative_prompts[0])
        videos.append(dataclasses.replace(video, scenes=(scene,)))
    return request.replace(videos=tuple(videos))


REQUEST_KEYS = ("num_frames", "height", "width", "fps", "guidance_scale", "num_inference_steps")
"""Request keys that a model or a method may bring defaults for."""


def resolve_defaults(
    user: Mapping[str, Any],
    methods: Mapping[str, Mapping[str, Any]],
    model: Mapping[str, Any],
    core: Mapping[str, Any],
    tuned: Mapping[str, Any] | None = None,
) -> dict[str, tuple[Any, str]]:
    """Each of REQUEST_KEYS with its value and where it came from.

    Precedence: user > the tuned run's > the model's defaults for a method > the method's > the model's > the core's;
    between methods the last of the list wins. ``methods`` maps name -> its ``defaults``; ``model`` holds ``defaults``
    and ``method_defaults`` (name -> defaults).
    """
    layers: list[tuple[str, Mapping[str, Any]]] = [("you", {k: v for k, v in user.items() if v is not None})]
    layers += [("the tuned run", tuned or {})]
    for_method = model.get("method_defaults") or {}
    layers += [(f"model for {name}", for_method.get(name) or {}) for name in reversed(list(methods))]
    layers += [(f"method {name}", methods[name] or {}) for name in reversed(list(methods))]
    layers += [("model", model.get("defaults") or {}), ("core", core)]
    resolved: dict[str, tuple[Any, str]] = {}
    for key in REQUEST_KEYS:
        resolved[key] = next(
            ((layer[key], origin) for origin, layer in layers if layer.get(key) is not None), (None, "")
        )
    return resolved
