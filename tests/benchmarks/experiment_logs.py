"""Real randomised experiments written as the five tables: what tests and proofs read through the whole road."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from playbill.tables.folder import write_folder
from playbill.tables.schema import CONTRACT, EventKind

TIME = pa.timestamp("us", tz="UTC")
SENT = np.datetime64("2008-03-01", "us")


def write_hillstrom(shared_data: Path, folder: Path) -> Path:
    """Write hillstrom: 64,000 customers, a third of whom each got the men's mail, the women's mail, or none.

    Experiment 0, arms mens, womens, none, planned a third each; visits and purchases stand a week after the mailing.
    """
    rows = pq.read_table(shared_data / "hillstrom" / "hillstrom.parquet")
    people = rows.num_rows
    user = np.arange(people)
    names = {"Mens E-Mail": "mens", "Womens E-Mail": "womens", "No E-Mail": "none"}
    visit, bought = rows["visit"].to_numpy() == 1, rows["conversion"].to_numpy() == 1
    who = np.concatenate([user[visit], user[bought]])
    spent = np.concatenate([np.full(visit.sum(), np.nan), rows["spend"].to_numpy()[bought]])
    tables = {
        "users": pa.table({"user_id": user}),
        "decisions": pa.table(
            {
                "decision_id": user,
                "request_id": np.zeros(people, np.int64),
                "kind": ["experiment_arm"] * people,
                "chosen": [names[segment] for segment in rows["segment"].to_pylist()],
                "at": pa.array(np.full(people, SENT), TIME),
                "user_id": user,
                "propensity": np.full(people, 1 / 3),
            }
        ),
        "events": pa.table(
            {
                "event_id": np.arange(len(who)),
                "user_id": who,
                "event": ["visit"] * int(visit.sum()) + ["purchase"] * int(bought.sum()),
                "at": pa.array(np.full(len(who), SENT + np.timedelta64(7, "D")), TIME),
                "value": pa.array(spent, from_pandas=True),
            }
        ),
    }
    return _write(folder, tables, ["visit", "purchase"])


def write_headlines(shared_data: Path, folder: Path, test: str) -> tuple[Path, list[int], list[int]]:
    """Write one Upworthy test: every impression a visitor without a name, assigned to a package, who clicks or not."""
    rows = pq.read_table(shared_data / "upworthy-exploratory" / "packages.parquet")
    rows = rows.filter(pc.equal(rows["clickability_test_id"], test))
    shown, clicked = rows["impressions"].to_pylist(), rows["clicks"].to_pylist()
    arm = np.repeat(np.arange(len(shown)), shown)
    first = np.cumsum([0, *shown[:-1]])
    clicks = np.concatenate([np.arange(start, start + n) for start, n in zip(first, clicked, strict=True)])
    visitors = pa.array([f"v{i}" for i in range(len(arm))])
    tables = {
        "decisions": pa.table(
            {
                "decision_id": visitors,
                "request_id": pa.repeat(test, len(arm)),
                "kind": pa.repeat("experiment_arm", len(arm)),
                "chosen": pa.array(arm).cast(pa.string()),
                "at": pa.array(np.full(len(arm), SENT), TIME),
                "session_id": visitors,
                "propensity": np.full(len(arm), 1 / len(shown)),
            }
        ),
        "events": pa.table(
            {
                "event_id": clicks,
                "session_id": visitors.take(clicks),
                "event": pa.repeat("click", len(clicks)),
                "at": pa.array(np.full(len(clicks), SENT + np.timedelta64(1, "m")), TIME),
            }
        ),
    }
    return _write(folder, tables, ["click"]), shown, clicked


def write_same(folder: Path, draw: np.random.Generator, people: int, share: float) -> Path:
    """Write an experiment whose arms do not differ: `share` of the people get b, and a tenth of all buy.

    Experiment same, arms control, b; one person after the other over 20 days, a purchase an hour after the assignment,
    of a log-normal amount.
    """
    user = np.arange(people)
    at = SENT + (user * (20 * 86_400_000_000 // people)).astype("timedelta64[us]")
    treated = draw.random(people) < share
    buys = np.flatnonzero(draw.random(people) < 0.1)
    tables = {
        "decisions": pa.table(
            {
                "decision_id": user,
                "request_id": pa.repeat("same", people),
                "kind": pa.repeat("experiment_arm", people),
                "chosen": np.where(treated, "b", "control").tolist(),
                "at": pa.array(at, TIME),
                "user_id": user,
                "propensity": np.where(treated, share, 1 - share),
            }
        ),
        "events": pa.table(
            {
                "event_id": buys,
                "user_id": buys,
                "event": pa.repeat("purchase", len(buys)),
                "at": pa.array(at[buys] + np.timedelta64(1, "h"), TIME),
                "value": draw.lognormal(3, 1.2, len(buys)),
            }
        ),
    }
    return _write(folder, tables, ["purchase"])


def _write(folder: Path, tables: dict[str, pa.Table], events: list[str]) -> Path:
    columns = {name: [c for n in t.column_names for c in CONTRACT[name] if c.name == n] for name, t in tables.items()}
    write_folder(folder, tables, source="real", columns=columns, events=[EventKind(name=event) for event in events])
    return folder
