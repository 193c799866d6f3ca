"""Texts of items -> a vector column, by a sentence model: precomputed, kept by text, the same whoever asks."""
