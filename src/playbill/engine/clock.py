"""Milliseconds by step."""

from __future__ import annotations

from playbill.engine.budget import Budget, now


class Clock:
    """Adds the time since it was last stopped to the stage that it is stopped for."""

    def __init__(self, stages: dict[str, float], budget: Budget | None = None) -> None:
        self._stages, self._budget, self._began = stages, budget, now()
        self._last = self._began

    def stop(self, stage: str, ran: bool = True) -> None:
        """Stop for a stage; one that was passed over says nothing of what it takes."""
        moment = now()
        took = (moment - self._last) * 1e3
        self._stages[stage] = self._stages.get(stage, 0.0) + took
        if self._budget is not None and ran:
            self._budget.took(stage, took)
        self._last = moment

    def total_ms(self) -> float:
        return (self._last - self._began) * 1e3
