"""Builds TensorRT engines of a bundle's graphs."""
