"""The Banzhaf interaction in PyTorch: exact, sampled, and estimated by a network."""
