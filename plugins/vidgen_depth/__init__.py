"""Depth-conditioned one-shot tuning (arXiv 2408.16704): maps, edits of maps, and the temporal consistency loss."""
