"""StreamingT2V: a short-clip model continues its own video for as long as is asked, in constant memory."""

from vidgen_core import Plugin

plugin = Plugin(
    name="streaming",
    summary="long videos in constant memory: every chunk sees the last frames and an anchor frame",
    package=__name__,
    paper="StreamingT2V: Consistent, Dynamic, and Extendable Long Video Generation from Text (arXiv 2403.14773)",
    families=("unet3d",),
    reads=("image", "video", "tuned", "weights"),
    converter="vidgen_streaming.published.converted",
    remembers="The last frames (streaming.overlap of them) and one anchor frame of each video, as floats in the main "
    "memory, until the batch ends; the anchor's tokens and the keys of texts on the device. Nothing grows.",
    composes_with="It decides how frames are cut into chunks and what a chunk remembers, so it goes with methods that "
    "decide the text of every absolute frame.",
    trial={
        **{"streaming.chunk": 2, "streaming.overlap": 1, "streaming.hidden": 32},
        "streaming.embedding_widths": [8, 8, 8, 8],
    },
)
