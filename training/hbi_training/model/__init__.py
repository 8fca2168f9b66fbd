"""The HBI model in PyTorch, and the mean-pooled CLIP it is compared with."""
