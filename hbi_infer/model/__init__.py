"""A bundle on disk, its tokenizer, and the graphs that turn frames and words into tokens."""
