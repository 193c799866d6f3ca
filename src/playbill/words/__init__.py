"""Sentences from somebody else: phrased from facts, checked, and dropped where the facts do not hold them up."""
