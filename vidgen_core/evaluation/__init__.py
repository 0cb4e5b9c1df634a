"""Comparing and scoring videos: `vidgen evaluate`. ``vidgen_core.evaluate`` tells it from beginning to end."""
