"""Milliseconds by step."""

from __future__ import annotations

import time


class Clock:
    """Adds the time since it was last stopped to the stage that it is stopped for."""

    def __init__(self, stages: dict[str, float]) -> None:
        self._stages, self._began = stages, time.perf_counter()
        self._last = self._began

    def stop(self, stage: str) -> None:
        now = time.perf_counter()
        self._stages[stage] = self._stages.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now

    def total_ms(self) -> float:
        return (self._last - self._began) * 1e3
