"""The parts of a training: what a step computes, checkpoints, validation, log. The loop itself is ``train.py``."""
