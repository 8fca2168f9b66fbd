"""ONNX graphs, bundles and checks against eager."""
