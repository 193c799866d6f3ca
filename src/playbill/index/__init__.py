"""Nearest items: building an index to a recall floor, searching it under filters, opening it read-only."""
