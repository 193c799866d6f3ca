"""Conditions over columns, as people write them: read, checked against the columns, evaluated."""
