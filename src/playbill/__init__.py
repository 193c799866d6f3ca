"""Playbill: every person their own programme."""

__version__ = "0.1.0"
__all__ = ["__version__"]
