"""CUDA kernels of our own operators, and what they declare."""
