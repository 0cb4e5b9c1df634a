"""Moving Shapes: a small captioned video world with its own oracle and its own text-to-video models."""

from vidgen_core import Plugin

plugin = Plugin(
    name="moving_shapes",
    summary="coloured shapes that move over coloured grounds, an oracle that reads them back, and trained models",
    package=__name__,
    is_method=False,
)
