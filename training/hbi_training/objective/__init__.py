"""The training objective: its terms, and the forward pass that sums them."""
