"""Does the loop narrow itself? What is shown, round after round, with an alarm for a shrinking catalogue."""

from playbill.measure.feedback.rounds import alarm_round, read_rounds

__all__ = ["alarm_round", "read_rounds"]
