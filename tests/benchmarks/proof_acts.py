"""What people do next, foretold: on Complete Journey's baskets and in a simulated service whose truth is known.

    python tests/benchmarks/proof_acts.py [home=var] [data=DIR] [people=6000] [days=400]

Both are fitted by `playbill train-acts`, whose report is recorded as it is: every model on moments that none of them
had seen, observed against expected by tenths, dates beside everybody's own mean gap, money beside the mean and RFM.

In the simulated service it is known how likely everybody is to come within 14 days without a mail: visits are Poisson,
and no mail makes one. Of those whom a trigger chooses, and of those whom the rule "inactive for 30 days" (or "everybody
who left a basket") chooses, the mean of that chance is the share of mails sent to people who would have come anyway.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

from acts_journey import write_baskets
from record import machine, record

from playbill.cli import compose
from playbill.measure.bootstrap import Interval, intervals
from playbill.training.campaign.acts_job import read_report
from playbill.world.build import build
from playbill.world.settings import start_us
from playbill.world.visits import DAY_US, day_shares

WITHIN = 14


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home = Path(given.get("home", "var"))
    checkout = Path(__file__).resolve().parents[2]
    data = Path(given.get("data", os.environ.get("PLAYBILL_SHARED_DATA", checkout.parent / "shared" / "data")))
    started = machine()
    write_baskets(data / "complete-journey", home / "tables" / "journey")
    _train(home, "journey")
    world = [
        "world=fitted",
        "size=small",
        f"size.people={given.get('people', 6000)}",
        f"size.days={given.get('days', 400)}",
        "size.activity=1",
        "size.contexts=false",
        "seed=3",
        "name=acts",
    ]
    _run("generate", [f"home={home}", *world])
    settings = compose("generate", world)
    end = start_us(settings.size) + settings.size.days * DAY_US
    _train(home, "acts", f"until={datetime.fromtimestamp(end / 1e6, UTC).isoformat()}")
    figures = {
        "complete_journey": _plain(read_report(home / "runs" / "journey-acts")),
        "world": _plain(read_report(home / "runs" / "acts-acts")),
        "triggers": _triggers(home, world, end),
    }
    for name, found in figures["triggers"].items():
        print(name, found)
    print(f"written to {record('acts', figures, started)}")
    return 0


def _run(job: str, arguments: list[str]) -> None:
    from playbill.cli import load
    from playbill.jobs import JOBS

    load(JOBS[job].run)(compose(job, arguments))


def _train(home: Path, tables: str, *more: str) -> None:
    _run("train-acts", [f"home={home}", f"tables={tables}", *more])


def _plain(report: Any) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(report))
    return found


def true_returns(world: list[str]) -> np.ndarray:
    """Return [P] each person's chance to come within WITHIN days after the last day, person k being user k + 1."""
    settings = compose("generate", world)
    built = build(settings.world, settings.size, settings.seed)
    zones = len(built.parameters.population.timezones)
    row = built.people.rhythm.astype(np.int64) * zones + built.people.timezone
    days = range(settings.size.days, settings.size.days + WITHIN)
    weight = np.sum([day_shares(built, day)[0] for day in days], 0)[row]
    chance: np.ndarray = 1 - np.exp(-built.people.visits_per_day.astype(np.float64) * weight)
    return chance


def _triggers(home: Path, world: list[str], end: int) -> dict[str, Any]:
    truth = true_returns(world)
    asked = [f"home={home}", "tables=acts", f"at={datetime.fromtimestamp(end / 1e6, UTC).isoformat()}"]
    _run("campaign-audience", asked)
    chosen, looked_at = _audience(home, "re_engagement")
    known = looked_at.filter(pl.col("churn_30").is_not_null())
    silent = _silent(home / "tables" / "acts", end, 30).join(known.select("user_id", "would_return"), on="user_id")
    least = known.sort("would_return", "user_id").head(len(silent))
    found = {
        "re_engagement": _of(truth, chosen),
        "inactive_30_days": _of(truth, silent),
        "as_many_by_chance_to_return": _of(truth, least),
    }
    _run("campaign-audience", [*asked, "trigger=basket", "basket_events=[click]"])
    chosen, looked_at = _audience(home, "basket")
    judged = looked_at.filter(pl.col("would_return").is_not_null())
    found |= {
        "basket": _of(truth, chosen),
        "basket_held_back": _of(truth, judged.filter(pl.col("reason") == "would_return")),
        "every_basket": _of(truth, judged),
    }
    return found


def _audience(home: Path, name: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return who is chosen, and everybody looked at with `reason`."""
    folder = home / "audiences" / name
    chosen = pl.read_parquet(folder / "audience.parquet")
    both = [chosen.with_columns(reason=pl.lit("")), pl.read_parquet(folder / "held.parquet")]
    return chosen, pl.concat(both, how="diagonal")


def _silent(tables: Path, end: int, days: int) -> pl.DataFrame:
    """Return who was not there in the last so many days: opens, which machines make too, do not count."""
    rows = pl.scan_parquet(tables / "events.parquet").filter(
        (pl.col("event") != "open") & pl.col("user_id").is_not_null()
    )
    last = rows.group_by("user_id").agg(pl.col("at").dt.epoch("us").filter(pl.col("at").dt.epoch("us") < end).max())
    return last.filter(pl.col("at") < end - days * DAY_US).select("user_id").collect()


def _of(truth: np.ndarray, people: pl.DataFrame) -> dict[str, Any]:
    """Return how many there are, how many of them would come anyway, and what was believed of that."""
    ids = people["user_id"].to_numpy()
    if not len(ids):
        return {"people": 0}
    share: Interval = intervals({"share": truth[ids - 1]})["share"]
    return {
        "people": len(ids),
        "would_come_anyway": msgspec.to_builtins(share),
        "likely_to_come": float((truth[ids - 1] > 0.5).mean()),
        "believed": float(people["would_return"].mean()),  # type: ignore[arg-type]  # of floats
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
