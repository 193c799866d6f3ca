"""Whom a treatment moves, and what targeting it is worth: Qini, AUUC, policy value, reference learners."""
