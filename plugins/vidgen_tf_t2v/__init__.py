"""TF-T2V: one model of text-free videos and text-image pairs; a text, an image or both say what a video shows."""

from vidgen_core import Plugin

plugin = Plugin(
    name="tf_t2v",
    summary="a text, a reference image or both, and maps such as depth, say what the video shows",
    package=__name__,
    paper="A Recipe for Scaling up Text-to-Video Generation with Text-free Videos (arXiv 2312.15770)",
    families=("unet3d",),
    converter="vidgen_tf_t2v.conversion.converted",
    reads=("image", "video", "tuned", "weights"),
    shown_by=("image", "video", "tf_t2v.conditions"),
    needs=("streaming",),  # whose refinement its own is made of
    composes_with="It puts tokens of an image beside whatever text a frame reads, so it goes with methods that decide "
    "the text of every absolute frame or how frames are cut into windows.",
    trial={"tf_t2v.no_image": "zero_embedding"},
)
