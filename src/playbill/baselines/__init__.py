"""What one would do instead: popularity, trending, neighbours, EASE and iALS, in numpy and scipy."""
