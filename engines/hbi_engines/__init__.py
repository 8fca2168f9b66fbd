"""Runtimes for ONNX graphs behind one protocol."""
