"""Depth-conditioned one-shot tuning: Tune-A-Video on a depth-to-image model, with a temporal consistency loss."""

from vidgen_core import Plugin

plugin = Plugin(
    name="depth",
    summary="one-shot tuning that keeps a clip's depth: objects stay apart, and in front of each other",
    package=__name__,
    paper="One-Shot Learning Meets Depth Diffusion in Multi-Object Videos (arXiv 2408.16704)",
    families=("unet2d",),
    reads=("video", "tuned"),
    needs=("tune_a_video",),
    composes_with="It makes a video model of a depth-to-image model, so it goes with methods that decide the text of "
    "every frame.",
    excludes={
        "tune_a_video": "depth includes the inflation and the tuning of tune_a_video. Use method=depth with a model "
        "that reads depth, or method=tune_a_video with one that does not."
    },
    trial={"video": "pkg://vidgen_moving_shapes/clips/crossing.mp4", "model": "tiny_depth"},
)
