"""What every frame is told: the prompt at first, and more and more of a second one."""

from typing import Any

from vidgen_core import hookimpl
from vidgen_core.conditioning import text_per_frame
from vidgen_core.run import Run, Window


class MyMethod:
    def __init__(self, caption: str | None = None, strength: float = 1.0) -> None:
        self.caption, self.strength = caption, strength

    @hookimpl(claims="text")
    def condition(self, run: Run, window: Window) -> dict[str, Any]:
        def row(video: int, frame: int) -> int:
            prompt = run.request.videos[video].scenes[0].prompt
            share = min(frame / max(run.request.num_frames - 1, 1), 1.0)
            return run.texts.blend(prompt, self.caption or prompt, self.strength * share)

        return {"text": text_per_frame(run, window, row)}
