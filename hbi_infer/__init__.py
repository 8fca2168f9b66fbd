"""Search, question and caption folders of videos with Hierarchical Banzhaf Interaction."""

__version__ = "0.1.0"
