"""my_method: frames are drawn together while they are sampled."""

from vidgen_core import Plugin

plugin = Plugin(
    name="my_method",
    summary="latents are drawn to their mean over time in the first half of the steps",
    package=__name__,
    families=("unet3d", "unet2d"),
    composes_with="It corrects the latents after each step, so it goes with all methods that leave the steps alone.",
    hook_api=1,
)
