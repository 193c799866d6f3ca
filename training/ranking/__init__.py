"""Ranking: cross network and task heads, cross-fitted retrieval scores, and their training."""
