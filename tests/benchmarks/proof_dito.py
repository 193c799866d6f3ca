"""Are real openings of e-mails likelier under people's own hours than under the list's?

    python tests/benchmarks/proof_dito.py [data=DIR] [people=20000]

Dito's openings, of which no sends are known: a fifth of each person's is held out, of people with ten others at least.
By how many nats an opening is likelier under the person's rhythm, shrunk as send times are, than under the histogram of
all openings, with its interval over people.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.campaign.rhythm import HOURS, fit_week, log_rates, people
from playbill.measure.bootstrap import intervals


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    checkout = Path(__file__).resolve().parents[2]
    data = Path(given.get("data", os.environ.get("PLAYBILL_SHARED_DATA", checkout.parent / "shared" / "data")))
    started = machine()
    figures = measure(data / "dito-email-opens", int(given.get("people", 20_000)))
    print(figures)
    print(f"written to {record('dito', figures, started)}")
    return 0


def measure(folder: Path, most: int) -> dict[str, Any]:
    """Return people, held-out openings, and nats an opening with its interval."""
    opens = pl.read_parquet(folder / "opens.parquet").filter(pl.col("hour_of_day").is_between(0, 24, closed="left"))
    hour = np.floor((opens["weekday"] * 24 + opens["hour_of_day"] - 3).to_numpy() % HOURS).astype(np.int64) % HOURS
    users, person = np.unique(opens["user"].to_numpy(), return_inverse=True)
    held = np.random.default_rng(0).random(len(hour)) < 0.2
    shape = (len(users), HOURS)
    kept, out = (
        np.bincount(person[m] * HOURS + hour[m], minlength=shape[0] * HOURS).reshape(shape) for m in (~held, held)
    )
    mine = np.flatnonzero((kept.sum(1) >= 10) & (out.sum(1) > 0))[:most]
    kept, out, nothing = kept[mine], out[mine], np.zeros((len(mine), HOURS))
    nobody = np.zeros(len(mine), np.int64)
    week = fit_week(kept, nothing, nothing, nobody, 1, rounds=5)
    rate = log_rates(week, people(week, kept, nothing, nothing, nobody).value[:, 1:])
    by_list = np.log((kept.sum(0) + 1) / (kept.sum() + HOURS) * HOURS)
    better = (out * (rate - by_list)).sum(1) * len(out) / out.sum()
    found = intervals({"nats": better}, seed=0)["nats"]
    return {
        "people": len(mine),
        "held_out_openings": int(out.sum()),
        "nats_an_opening": {"value": found.value, "low": found.low, "high": found.high},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
