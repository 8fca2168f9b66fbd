"""Bundles in other precisions, and the gate that measures what they cost."""
