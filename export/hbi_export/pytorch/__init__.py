"""PyTorch as a runtime, to compare the others with."""
