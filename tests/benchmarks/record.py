"""Where a benchmark's figures go: printed, and written with the machine, the commit and the versions they belong to."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from playbill.release.record import commit, machine, versions

__all__ = ["commit", "machine", "record"]

RESULTS = Path(__file__).with_name("results")


def record(theme: str, figures: dict[str, Any], started: dict[str, Any]) -> Path:
    """Write `results/<theme>_<cores>-cores_<yyyymm>.json` and return its path.

    Args:
        theme: what was measured, such as `engine`.
        figures: the measurement; units stand in the names.
        started: `machine()` as it was before the measurement, so that the load it began under is on record.
    """
    now = datetime.now(UTC)
    whole = {
        "theme": theme,
        "at": now.isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": started,
        "versions": versions(),
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{theme}_{started['cores']}-cores_{now:%Y%m}.json"
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(whole, indent=1) + "\n")
    beside.replace(path)
    return path
