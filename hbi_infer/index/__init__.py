"""The index of a folder: which clips its videos have, and their tokens."""
