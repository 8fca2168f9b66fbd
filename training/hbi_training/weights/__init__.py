"""Weights on disk: checkpoints, files from elsewhere, rounding."""
