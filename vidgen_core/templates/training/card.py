"""my_method: learned factors of what the model predicts."""

from vidgen_core import Plugin

plugin = Plugin(
    name="my_method",
    summary="a learned factor for every channel of the prediction",
    package=__name__,
    reads=("tuned", "weights"),
    composes_with="It changes the last layer's output only, so it goes with all methods for UNet3D models.",
    hook_api=1,
)
