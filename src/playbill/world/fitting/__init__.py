"""Fitting the world's numbers to real logs, with a report of plots and distances."""

__all__: list[str] = []
