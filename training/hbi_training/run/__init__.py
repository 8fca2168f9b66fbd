"""Training runs: recipes, optimisers, the trainer, and the work behind the commands."""
