"""Reading an experiment: declared metrics, effects of the arms against the control, guardrails, false discoveries."""
