"""Models that others trained become bundles, with NumPy and `onnx` alone."""
