"""Metrics of retrieval, answers and captions on a split."""
