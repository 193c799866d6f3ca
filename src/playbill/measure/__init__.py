"""Logs -> truth: ranking metrics and what a difference between two of them is worth. Knows tables and arrays only."""
