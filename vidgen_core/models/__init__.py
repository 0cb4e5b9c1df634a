"""Backbones: a denoiser, its VAE and its text encoder behind one call."""
