"""The HBI model in PyTorch, and the mean-pooled CLIP that it is compared with."""
