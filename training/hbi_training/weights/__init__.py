"""Weights on disk: checkpoints, other people's files, rounding."""
