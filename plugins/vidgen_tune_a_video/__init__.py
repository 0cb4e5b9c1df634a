"""Tune-A-Video: an image model learns one captioned clip, and edits it by another prompt."""

from vidgen_core import Plugin

plugin = Plugin(
    name="tune_a_video",
    summary="one-shot tuning: an image model learns one clip, and another prompt edits it",
    package=__name__,
    paper="Tune-A-Video: One-Shot Tuning of Image Diffusion Models for Text-to-Video Generation (arXiv 2212.11565)",
    families=("unet2d",),
    reads=("video", "tuned"),
    composes_with="It makes a video model of an image model and starts from the clip's inverted noise, so it goes with "
    "methods that decide the text of every frame.",
    trial={"video": "pkg://vidgen_moving_shapes/clips/crossing.mp4"},
)
