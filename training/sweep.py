"""`playbill sweep`: check every dimension, go on where the sweep stood, run the trials, write down what came out."""

from __future__ import annotations

from playbill.training.sweeping.settings import SweepSettings


def run(settings: SweepSettings) -> None:
    """Run a sweep to its end.

    Raises:
        ConfigError: a dimension, a value or the metric is none of `playbill train`'s.
        TrainingError: another sweep of this name is there or running, or no trial could be trained.
    """
    from playbill.training.sweeping.run import sweep

    sweep(settings)
