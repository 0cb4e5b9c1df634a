"""my_method: frames of a video attend alike."""

from vidgen_core import Plugin

plugin = Plugin(
    name="my_method",
    summary="what temporal attention says is drawn to its mean over time, which calms a video",
    package=__name__,
    composes_with="It wraps the temporal attention that it finds, so it goes with all methods for UNet3D models.",
    hook_api=1,
)
