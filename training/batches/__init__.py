"""Padded arrays and KeyedJaggedTensors, the order of rows, and negative sampling."""
