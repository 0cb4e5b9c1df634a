"""Adapters of the StreamingT2V cases, by what they show."""

from streaming_adapters import blending, image_encoder, mawe, memory

ADAPTERS = {**memory.ADAPTERS, **blending.ADAPTERS, **image_encoder.ADAPTERS, **mawe.ADAPTERS}
