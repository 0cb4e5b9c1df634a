"""Every frame reads the prompt with a word of the user's before it."""

from vidgen_core import hookimpl
from vidgen_core.conditioning import text_per_frame


class Example:
    def __init__(self, word="bright"):
        self.word = word

    @hookimpl(claims="text")
    def condition(self, run, window):
        def row(video, frame):
            return run.texts.rows([f"{self.word} {run.request.videos[video].scenes[0].prompt}"])[0]

        return {"text": text_per_frame(run, window, row)}
