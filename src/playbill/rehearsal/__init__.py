"""The world, the engine and the measures together, round after round."""
