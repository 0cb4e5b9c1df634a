"""TALC: every scene of a video is described by its own caption, frame by frame, in one denoised clip."""

from vidgen_core import Plugin

plugin = Plugin(
    name="talc",
    summary="several scenes in one video: each frame attends to the caption of its own scene",
    package=__name__,
    paper="TALC: Time-Aligned Captions for Multi-Scene Text-to-Video Generation (arXiv 2405.04682)",
    families=("unet3d", "unet2d"),
    composes_with="It decides the text of every absolute frame, so it goes with methods that decide how frames are "
    "cut into windows or how latents are sampled.",
    trial={"prompt": ["a dog runs", "it sleeps"]},
)
