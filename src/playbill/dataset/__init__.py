"""The past, as it was: histories as of each moment, splits by time, and the statistics that negatives need."""
