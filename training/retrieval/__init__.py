"""Retrieval: query tower, item tower, losses, and their training."""
