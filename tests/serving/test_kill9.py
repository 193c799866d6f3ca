"""The short twin of tests/benchmarks/proof_kill9.py: three kills under load, of both servers and of redis-server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))


def test_killed_under_load_every_acknowledged_event_is_there_once(start_redis: Callable[..., Any]) -> None:
    from proof_kill9 import kills

    found = kills("redis", 3, seed=8)
    assert found["kills"] == {"server": 2, "redis-server": 1}
    assert found["stored"] >= found["acknowledged"] > 30 and found["profiles_equal_to_the_log_folded_anew"] == 20
    assert sum(found["answers_that_were_no_acknowledgement"].values()) > 0  # the kills were felt
