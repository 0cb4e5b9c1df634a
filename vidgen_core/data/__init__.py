"""Training data: what a sample is, which samples a step takes, and where they come from."""
