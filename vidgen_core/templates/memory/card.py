"""my_method: a long video in chunks that keep the tone of the first."""

from vidgen_core import Plugin

plugin = Plugin(
    name="my_method",
    summary="a long video in chunks that keep the tone of the first",
    package=__name__,
    families=("unet3d", "unet2d"),
    composes_with="It decides how frames are cut into chunks, so it goes with methods that decide the text of a frame.",
    remembers="the mean latents of the first chunk, one number a channel, for as long as the video is made",
    trial={"my_method.chunk": 2},
    hook_api=1,
)
