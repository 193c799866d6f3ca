"""The workshop: trains retrieval and ranking models and exports them. Knows torch; never Ray Serve."""
