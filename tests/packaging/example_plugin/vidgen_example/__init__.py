"""A stranger's plugin with one of everything that a plugin can bring."""

from vidgen_core import Plugin

plugin = Plugin(
    name="example",
    summary="a method, a model, data, a metric, a scheduler and a command",
    package=__name__,
    needs=("talc",),
    composes_with="It decides the text of every frame, so it goes with methods that cut or sample frames.",
    commands={"example_frames": "counts the frames of a video"},
    hook_api=1,
)
