"""PyTorch: the HBI model, its losses, its data and its trainer."""
