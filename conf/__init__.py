"""Hydra configuration: one entry file a job, one group a choice."""
