"""Data sets: readers of published annotation formats, a plain manifest, and the procedural `shapes`."""
