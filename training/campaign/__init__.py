"""Fitting of what campaigns stand on: when people read their mails."""
