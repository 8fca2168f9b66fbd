"""Hierarchical tokens, their similarity, the Banzhaf interaction and how faithful it is: NumPy alone."""
