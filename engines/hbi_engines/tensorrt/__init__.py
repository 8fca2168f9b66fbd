"""TensorRT and TensorRT-RTX: engines, plugins and a trial of both."""
