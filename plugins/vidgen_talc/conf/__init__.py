"""Configuration of the plugin."""
