"""Traces a model's parts into ONNX graphs and compares them with the model."""
