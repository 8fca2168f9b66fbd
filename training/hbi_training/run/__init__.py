"""Training runs: recipes, optimisers, the trainer, and what the commands call."""
