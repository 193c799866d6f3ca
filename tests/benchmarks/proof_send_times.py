"""What hours of one's own are worth where mails come for long: the share of what somebody who knows the truth gains.

    python tests/benchmarks/proof_send_times.py home=DIR [world=fitted] [people=4000] [days=720] [every_days=3]

A simulated service mails everybody every few days at hours drawn at random; `playbill train-campaign` learns from it.
Held against the truth of the service: how much likelier an open is at each person's best hour than at the hour that is
best for the list, as a share of what their truly best hour would gain; of people with 30 opens or more, and of others.
Then mail programs open every mail of 30 % of all people within a minute, and all is learned again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parent))

from record import machine, record

from playbill.campaign.mail_log import arrivals
from playbill.campaign.send_time import read_send_times
from playbill.cli import compose
from playbill.training.campaign.learn import SendTimeReport
from playbill.world.build import build
from playbill.world.respond import open_probability

MACHINES, OPENS = 0.3, 30
HOURS = np.arange(168)


def main(arguments: list[str]) -> int:
    """Measure, print and record."""
    given = dict(a.split("=", 1) for a in arguments)
    home, began = Path(given.get("home", "var")), machine()
    size = {name: given.get(name, default) for name, default in (("people", "4000"), ("days", "720"))}
    world = [
        f"world={given.get('world', 'fitted')}", "size=tiny", f"size.people={size['people']}",
        f"size.days={size['days']}", "size.activity=1", "seed=11", "world.messages.machine_share=0",
        f"world.messages.every_days={given.get('every_days', '3')}",
    ]  # fmt: skip
    name = f"send_times_{size['people']}_{size['days']}"
    if not (home / "tables" / name).is_dir():
        _playbill("generate", f"home={home}", *world, "size.decisions_share=1", f"name={name}")
    spoiled = f"{name}_spoiled"
    if not (home / "tables" / spoiled).is_dir():
        _spoil(home / "tables" / name, home / "tables" / spoiled)
    truth = _truth(world)
    opens = _opens(home / "tables" / name)
    figures: dict[str, Any] = {"world": given.get("world", "fitted"), **size}
    for label, tables in (("clean", name), ("with machines", spoiled)):
        _playbill("train-campaign", f"home={home}", f"tables={tables}", "segment=segment")
        figures[label] = _gained(home, tables, truth, opens)
    clean, other = (figures[label]["opens_30"] for label in ("clean", "with machines"))
    if clean["share"] is None:
        raise SystemExit(f"{clean['people']} people have {OPENS} opens; simulate more people, or for longer")
    figures["machines_change_it_by"] = other["share"] - clean["share"]
    for label in ("clean", "with machines"):
        print(label, msgspec.json.encode(figures[label]).decode())
    print(f"machines change the share by {figures['machines_change_it_by']:+.3f}")
    print(f"written to {record('send_times', figures, began)}")
    return 0


def _playbill(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "playbill.cli", *words], check=True)


def _truth(world: list[str]) -> np.ndarray:
    """Return [P, 168] true probabilities of an open by local hour of arrival, over subjects, at the end of the log."""
    settings = compose("generate", world)
    made = build(settings.world, settings.size, settings.seed)
    people = np.arange(settings.size.people)
    day = np.full((1, 1), settings.size.days - 1)
    subjects = range(len(made.subjects.pull))
    each = [open_probability(made, people[:, None], np.full((1, 1), s), HOURS[None], day) for s in subjects]
    found: np.ndarray = np.mean(each, 0)
    return found


def _opens(tables: Path) -> dict[int, int]:
    events = pl.scan_parquet(tables / "events.parquet").filter(pl.col("event") == "open")
    return dict(events.group_by("user_id").len().collect().iter_rows())


def _spoil(tables: Path, out: Path) -> None:
    """Write the tables again, with openings by machines: each mail of some people, seconds after it arrived."""
    shutil.copytree(tables, out)
    dice = np.random.default_rng(5)
    users = pl.read_parquet(tables / "users.parquet", columns=["user_id", "timezone"])
    some = users.with_row_index("person").sample(fraction=MACHINES, seed=5)
    sent = arrivals(tables, some.select("person", "user_id", zone="timezone"), None, None)
    mails = sent.join(some, on="person").select("user_id", at="arrived")
    late = pl.Series((dice.exponential(20.0, len(mails)).clip(1, 100) * 1e6).astype(np.int64))
    events = pl.read_parquet(tables / "events.parquet")
    told = mails.with_columns(at=pl.col("at") + pl.duration(microseconds=late), event=pl.lit("open"))
    told = told.with_columns(event_id=pl.lit(-1) - pl.int_range(len(told)))
    told = told.cast({name: events.schema[name] for name in told.columns})  # type: ignore[arg-type]  # a schema
    pl.concat([events, told], how="diagonal").sort("at").write_parquet(out / "events.parquet")


def _gained(home: Path, tables: str, truth: np.ndarray, opens: dict[int, int]) -> dict[str, Any]:
    """Return the share of the oracle's gain by people's opens, and what the run says of itself."""
    run = home / "runs" / f"{tables}-campaign"
    found = read_send_times(run)
    report = msgspec.json.decode((run / "report.json").read_bytes(), type=SendTimeReport)
    users = pl.read_parquet(home / "tables" / tables / "users.parquet")
    users = users.filter(pl.col("user_id").is_in(found.user_ids.tolist()))
    chances, _ = found.chances(users["user_id"].to_list(), users["segment"].fill_null("").to_list())
    true = truth[users["user_id"].to_numpy() - 1]
    counts = np.asarray([opens.get(user, 0) for user in users["user_id"].to_list()])
    at_list = true[:, int(true.mean(0).argmax())]
    mine, best = true[np.arange(len(true)), chances.argmax(1)] - at_list, true.max(1) - at_list
    groups = {"opens_30": counts >= OPENS, "opens_10_29": (counts >= 10) & (counts < OPENS), "opens_0_9": counts < 10}
    judged = report.judged.after
    return {
        **{label: _share(mine[rows], best[rows]) for label, rows in groups.items()},
        "machines_found": report.machines,
        "observed_over_expected": None
        if judged.ratio is None
        else [judged.ratio.value, judged.ratio.low, judged.ratio.high],
        "tenths": [None if t.ratio is None else [t.ratio.value, t.ratio.low, t.ratio.high] for t in judged.tenths],
        "tenths_with_enough": [t.enough for t in judged.tenths],
    }


def _share(mine: np.ndarray, best: np.ndarray) -> dict[str, Any]:
    if len(mine) < 20:
        return {"people": len(mine), "share": None}
    dice = np.random.default_rng(0)
    draws = dice.integers(0, len(mine), (2_000, len(mine)))
    shares = mine[draws].sum(1) / best[draws].sum(1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return {"people": len(mine), "share": float(mine.sum() / best.sum()), "low": float(low), "high": float(high),
            "gain_of_the_truth": float(best.mean())}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
